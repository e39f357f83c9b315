import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk)
  return hash.digest('hex')
}

/** SHA-256 of every safetensors file of a folder, by name. */
export async function weightDigests(folder: string): Promise<Map<string, string>> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.safetensors')).sort()
  return new Map(await Promise.all(names.map(async (name) => [name, await sha256(join(folder, name))] as const)))
}
