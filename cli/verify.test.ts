import { createHash } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { virtualFileEtag } from '../patch/derivation.ts'
import { DERIVATION_METADATA_KEY } from '../patch/layout.ts'
import { writeHeader } from '../patch/safetensors.ts'
import { findDamage } from './verify.ts'

const DERIVATION = 'ab'.repeat(32)
const PATH = 'model.safetensors'
let folder: string
beforeEach(async () => void (folder = await mkdtemp(join(tmpdir(), 'portllm-verify-'))))
afterEach(() => rm(folder, { recursive: true }))

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** A file with two tensors of 8 bytes, as an upload or as a merge has it. */
async function sample(kind: 'uploaded' | 'merged') {
  const header = writeHeader([{ name: 'a', dtype: 'F32', shape: [2] }, { name: 'b', dtype: 'F32', shape: [2] }], { format: 'pt', ...(kind === 'merged' && { [DERIVATION_METADATA_KEY]: DERIVATION }) })
  const bytes = Buffer.concat([header, Buffer.from('0123456789abcdef')])
  const at = header.length
  const tensors = ['a', 'b'].map((name, index) => {
    const offset = at + 8 * index
    return { name, dtype: 'F32' as const, shape: [2], file: PATH, offset, length: 8, digest: `sha256:${sha256(bytes.subarray(offset, offset + 8))}` }
  })
  const etag = kind === 'uploaded' ? sha256(bytes) : await virtualFileEtag(DERIVATION, PATH)
  const extent = (blob: string, offset: number, length: number) => ({ blob, offset, length, method: 'GET' as const, url: 'http://x', headers: {} })
  const extents = kind === 'uploaded' ? [extent(etag, 0, bytes.length)] : [extent(sha256(header), 0, at), extent('cd'.repeat(32), 500, 16)]
  const plan = { expiresAt: '', files: [{ path: PATH, size: bytes.length, etag, extents }] }
  const check = async (change: (copy: Buffer) => void) => {
    const copy = Buffer.from(bytes)
    change(copy)
    await writeFile(join(folder, PATH), copy)
    return findDamage({ folder, plan, tensors, derivation: kind === 'merged' ? DERIVATION : null, progress: { update() {}, stop() {} }, signal: new AbortController().signal })
  }
  return { at, size: bytes.length, check }
}

test.each(['uploaded', 'merged'] as const)('every single byte of a file that is %s is watched', async (kind) => {
  const { at, size, check } = await sample(kind)
  expect(await check(() => {})).toEqual([])
  for (let byte = 0; byte < size; byte++) {
    const damage = await check((copy) => (copy[byte] = copy[byte]! ^ 1))
    expect(damage.some(({ start, end }) => start <= byte && byte < end)).toBe(true)
    if (byte >= at) expect(damage).toEqual([{ path: PATH, start: byte < at + 8 ? at : at + 8, end: byte < at + 8 ? at + 8 : at + 16 }])
  }
})
