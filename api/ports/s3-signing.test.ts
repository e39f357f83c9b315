import { expect, it } from 'vitest'
import { createS3BlobStore } from './s3-blob-store.ts'

const clock = { now: () => new Date('2026-01-02T03:04:05.678Z') }
const DIGEST = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
const keys = { accessKeyId: 'id', secretAccessKey: 'secret' }

const STORES = {
  aws: { ...keys, region: 'eu-west-1', bucket: 'models', pathStyle: false },
  china: { ...keys, region: 'cn-north-1', bucket: 'models', pathStyle: false },
  r2: { ...keys, region: 'auto', bucket: 'models', pathStyle: true, endpoint: 'https://account.r2.cloudflarestorage.com' },
  versity: { ...keys, region: 'us-east-1', bucket: 'models', pathStyle: true, endpoint: 'http://s3:7070', checksums: true },
  ceph: { ...keys, region: 'us-east-1', bucket: 'models', pathStyle: true, endpoint: 'http://10.0.0.1:7480', publicEndpoint: 'https://s3.example' },
}

it.each([
  ['aws', 'https://models.s3.eu-west-1.amazonaws.com/uploads/x', { 'x-amz-checksum-sha256': 'ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=' }],
  ['china', 'https://models.s3.cn-north-1.amazonaws.com.cn/uploads/x', { 'x-amz-checksum-sha256': 'ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=' }],
  ['r2', 'https://account.r2.cloudflarestorage.com/models/uploads/x', { 'x-amz-checksum-sha256': 'ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=' }],
  ['versity', 'http://s3:7070/models/uploads/x', { 'x-amz-checksum-sha256': 'ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=' }],
  ['ceph', 'https://s3.example/models/uploads/x', { 'x-amz-content-sha256': DIGEST }],
] as const)('%s: a PUT is signed for its size, its type and its bytes, in the way that the store checks', async (name, address, pin) => {
  const { url, headers } = await createS3BlobStore({ settings: STORES[name], clock }).signPut('uploads/x', { size: 3, sha256: DIGEST })
  const { origin, pathname, searchParams } = new URL(url)
  expect(origin + pathname).toBe(address)
  expect(headers).toEqual({ 'Content-Type': 'application/octet-stream', ...pin })
  expect(searchParams.get('X-Amz-SignedHeaders')).toBe(`content-length;content-type;host;${Object.keys(pin)[0]}`)
  expect([searchParams.get('X-Amz-Date'), searchParams.get('X-Amz-Expires')]).toEqual(['20260102T030405Z', '3600'])
})

it('a GET of a range is good for that range alone', async () => {
  const { url, headers } = await createS3BlobStore({ settings: STORES.aws, clock }).signGet('blobs/x', { offset: 5, length: 7 })
  expect(headers).toEqual({ Range: 'bytes=5-11' })
  expect(new URL(url).searchParams.get('X-Amz-SignedHeaders')).toBe('host;range')
})
