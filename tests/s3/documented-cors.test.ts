import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PutBucketCorsCommand } from '@aws-sdk/client-s3'
import { expect, it } from 'vitest'
import { systemClock } from '../../api/ports/clock.ts'
import { createS3BlobStore } from '../../api/ports/s3-blob-store.ts'
import { createS3Client } from '../../api/ports/s3-client.ts'
import { ROOT } from '../setup/registry.ts'
import { createBucket } from '../setup/s3.ts'

it('the CORS rules of docs/operations.md let a page fetch a range that a plan names, and write nothing', async () => {
  const CORSConfiguration = JSON.parse(/^\{ "CORSRules".*$/m.exec(await readFile(join(ROOT, 'docs/operations.md'), 'utf8'))![0])
  const { settings, remove } = await createBucket()
  try {
    await createS3Client(settings).send(new PutBucketCorsCommand({ Bucket: settings.bucket, CORSConfiguration }))
    const store = createS3BlobStore({ settings, clock: systemClock })
    const put = await store.signPut('uploads/x', { size: 10 })
    expect((await fetch(put.url, { method: 'PUT', headers: put.headers, body: '0123456789' })).status).toBe(200)
    const { url, headers } = await store.signGet('uploads/x', { offset: 2, length: 3 })
    const Origin = 'https://page.example'
    const preflight = (method: string) => fetch(url, { method: 'OPTIONS', headers: { Origin, 'Access-Control-Request-Method': method, 'Access-Control-Request-Headers': 'range' } })
    const asked = await preflight('GET')
    expect([asked.status, asked.headers.get('access-control-allow-headers')?.toLowerCase()]).toEqual([200, 'range'])
    expect((await preflight('PUT')).status).toBe(403)
    const got = await fetch(url, { headers: { ...headers, Origin } })
    expect([got.status, await got.text(), got.headers.get('access-control-allow-origin')]).toEqual([206, '234', '*'])
    expect(got.headers.get('access-control-expose-headers')).toContain('Content-Range')
  } finally {
    await remove()
  }
})
