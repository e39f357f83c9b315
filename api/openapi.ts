/** Writes openapi.yaml from the routes; with `--check`, fails where the file says something else. */
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { createApp } from './app.ts'
import { openapiDocument } from './openapi-document.ts'

const FILE = fileURLToPath(new URL('../openapi.yaml', import.meta.url))
const HEAD = '# Generated from api/routes by `npm run openapi`. Change the routes, not this file.\n'

const app = createApp(() => {
  throw new Error('nothing is connected while the document is made')
})
const wanted = HEAD + stringify(openapiDocument(app), { lineWidth: 120, aliasDuplicateObjects: false })
if (process.argv.includes('--check')) {
  const found = await readFile(FILE, 'utf8').catch(() => '')
  if (found !== wanted) {
    console.error('openapi.yaml does not say what the routes do: run "npm run openapi" and commit it.')
    process.exitCode = 1
  }
} else {
  await writeFile(FILE, wanted)
}
