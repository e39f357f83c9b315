import { createHash, randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { extents, files } from '../../db/schema.ts'
import { virtualFileEtag } from '../../patch/derivation.ts'
import { coalesce } from '../../patch/layout.ts'
import type { FileFixture } from '../contract/file-fixture.ts'

const MIB = 1024 * 1024
/** Of the target's bytes and of the changed tensors: as the all-linear r=16 merge of the benches cuts its files. */
const TARGET_BYTES = 24 * MIB + 4096
const CHANGED_BYTES = 8 * MIB
const BLOB_BYTES = 64 * MIB
const SAMPLE_MS = 50

export interface VirtualFile { readonly url: string; readonly size: number; readonly sha256: string; readonly extents: number }

/** A merged model's file of at least `bytes`, whose extents take turns between the target's blob and a new one. Its bytes are never whole in memory. */
export async function makeVirtualFile({ registry, ...fixture }: FileFixture, bytes: number): Promise<VirtualFile> {
  const { db } = registry.server.dependencies
  const organization = await fixture.organization()
  const target = await fixture.model(organization)
  const { id, path } = await fixture.derivation(target.id, [(await fixture.patch(organization, target.id)).id])
  const [base, fresh] = [randomBytes(BLOB_BYTES), randomBytes(CHANGED_BYTES)]
  const [baseBlob, freshBlob] = [await fixture.blob(base), await fixture.blob(fresh)]
  const list = []
  const hash = createHash('sha256')
  let size = 0
  for (let offset = 0; size < bytes; offset = (offset + 7_000_003) % (BLOB_BYTES - TARGET_BYTES)) {
    list.push({ blob: baseBlob, offset, length: TARGET_BYTES }, { blob: freshBlob, offset: 0, length: CHANGED_BYTES })
    hash.update(base.subarray(offset, offset + TARGET_BYTES)).update(fresh)
    size += TARGET_BYTES + CHANGED_BYTES
  }
  const name = 'model.safetensors'
  const [row] = await db.insert(files).values({ derivationId: id, path: name, size, etag: await virtualFileEtag(id, name) }).returning()
  await db.insert(extents).values(coalesce(list).map((extent, position) => ({ fileId: row!.id, position, ...extent })))
  return { url: `${registry.url}${path}/files/${name}`, size, sha256: hash.digest('hex'), extents: list.length }
}

export interface Pull { readonly sha256: string; readonly bytes: number; readonly seconds: number; readonly idleBytes: number; readonly peakBytes: number }

/** GETs a file and samples the resident memory of the one workerd of this process meanwhile. The reader rests once, for `restMs`. */
export async function pull(url: string, { restMs = 0 }: { restMs?: number } = {}): Promise<Pull> {
  const [workerd, ...others] = await findWorkerd()
  if (workerd === undefined || others.length > 0) throw new Error('this process must have started one workerd')
  const idleBytes = await residentBytes(workerd)
  let peakBytes = idleBytes
  let isDone = false
  const sampling = (async () => {
    while (!isDone) {
      peakBytes = Math.max(peakBytes, await residentBytes(workerd))
      await sleep(SAMPLE_MS)
    }
  })()
  const started = performance.now()
  const hash = createHash('sha256')
  let [bytes, rested] = [0, restMs === 0]
  const response = await fetch(url)
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}: ${await response.text()}`)
  for await (const chunk of response.body!) {
    hash.update(chunk)
    bytes += chunk.length
    if (rested || bytes < MIB) continue
    rested = true
    await sleep(restMs)
  }
  const seconds = (performance.now() - started) / 1000
  isDone = true
  await sampling
  return { sha256: hash.digest('hex'), bytes, seconds, idleBytes, peakBytes }
}

/** Process ids of the workerd that this process has started. */
export async function findWorkerd(): Promise<number[]> {
  const found: number[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
    const [, name, parent] = /^\d+ \((.*)\) \S (\d+)/.exec(stat) ?? []
    if (name === 'workerd' && Number(parent) === process.pid) found.push(Number(pid))
  }
  return found
}

export async function residentBytes(pid: number): Promise<number> {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))!
  return Number(kib) * 1024
}
