import { createHash, hash, type Hash } from 'node:crypto'
import { byteReader, type ByteReader } from '../byte-reader.ts'
import { download, SizeMismatchError } from '../download.ts'
import { freeBuffer } from '../free-buffer.ts'
import { collectGarbage } from '../garbage-collector.ts'
import type { Finding, IngestFile } from '../protocol.ts'
import { CoreError } from '../core/library.ts'
import { releaseMemory } from '../release-memory.ts'
import type { JobContext } from './job-context.ts'
import type { ManifestTensor } from '../../patch/manifest.ts'
import { isKeepable } from '../../patch/keepable-text.ts'
import { headerLength, parseHeader, RUNNER_HEADER_CAP, SafetensorsError, type SafetensorsHeader, type TensorInfo } from '../../patch/safetensors.ts'

/** Bytes read at once; a multiple of every element's size. */
const TILE_BYTES = 2 * 1024 * 1024

/** No model that is published with care comes near it; one of hundreds of thousands of tensors does. */
const LARGE_HEADER_BYTES = 2 * 1024 * 1024

export interface ScannedFile {
  /** Tensors of a safetensors file, in the order of their data; empty for any other. */
  readonly tensors: readonly ManifestTensor[]
  /** Text of a file that was asked for; null where it was not, or is unreadable. */
  readonly text: string | null
  readonly findings: readonly Finding[]
}

export interface ScanOptions {
  readonly core: JobContext['core']
  readonly signal: AbortSignal
  /** Told of every byte read. */
  onBytes(count: number): void
  /** Keep the file's text, refusing a file longer than this many bytes. Null: the text is not needed. */
  readonly textCap: number | null
}

/** Streams a file once: its SHA-256 against the declared one and, in a safetensors file, structure, digests and non-finite values. */
export async function scanFile(file: IngestFile, options: ScanOptions): Promise<ScannedFile> {
  const reader = byteReader(download(file.get, file.size, options.signal))
  const scan: Scan = { file, options, reader, hash: createHash('sha256'), findings: [] }
  try {
    const isSafetensors = file.path.endsWith('.safetensors')
    const tensors = isSafetensors ? await scanSafetensors(scan) : []
    const text = !isSafetensors && options.textCap !== null ? await readText(scan, options.textCap) : null
    await hashRest(scan)
    const digest = scan.hash.digest('hex')
    if (digest !== file.sha256) {
      scan.findings.push({ code: 'digest-mismatch', file: file.path, message: `The stored bytes of ${file.path} have the SHA-256 ${digest}, declared was ${file.sha256}. Upload the file again.` })
    }
    return { tensors, text, findings: scan.findings }
  } catch (error) {
    if (!(error instanceof SizeMismatchError)) throw error
    scan.findings.push({ code: 'size-mismatch', file: file.path, message: `${file.path} has ${error.found} stored bytes, declared were ${error.expected}. Upload the file again.` })
    return { tensors: [], text: null, findings: scan.findings }
  } finally {
    await reader.close()
  }
}

interface Scan {
  readonly file: IngestFile
  readonly options: ScanOptions
  readonly reader: ByteReader
  readonly hash: Hash
  readonly findings: Finding[]
}

/** Reads, counts and hashes the next bytes of the file. */
async function take({ reader, hash, options }: Scan, target: Uint8Array): Promise<Uint8Array> {
  const count = await reader.fill(target)
  const bytes = target.subarray(0, count)
  hash.update(bytes)
  options.onBytes(count)
  return bytes
}

async function scanSafetensors(scan: Scan): Promise<ManifestTensor[]> {
  const { file, findings } = scan
  try {
    return await scanTensors(scan, await readHeader(scan))
  } catch (error) {
    if (!(error instanceof SafetensorsError)) throw error
    findings.push({ code: `safetensors-${error.code}`, file: file.path, ...(error.tensor === undefined ? {} : { tensor: error.tensor }), message: `${file.path}: ${error.message}.` })
    return []
  }
}

async function readHeader(scan: Scan): Promise<SafetensorsHeader> {
  const { file, options: { core } } = scan
  const first = await take(scan, new Uint8Array(8))
  const prefix = new Uint8Array(headerLength(first, file.size, RUNNER_HEADER_CAP))
  const isLarge = prefix.byteLength > LARGE_HEADER_BYTES
  prefix.set(first)
  for (let at = 8; at < prefix.byteLength; at += LARGE_HEADER_BYTES) {
    await take(scan, prefix.subarray(at, at + LARGE_HEADER_BYTES))
    // What it came in would be as large as itself.
    if (isLarge) collectGarbage('minor')
  }
  try {
    const header = parseHeader(prefix, file.size, RUNNER_HEADER_CAP)
    if (isLarge) releaseMemory()
    await readAgain(header, prefix, file.size, core)
    const odd = header.tensors.find(({ name }) => !isKeepable(name))
    if (odd !== undefined) throw new SafetensorsError('bad-name', 'a tensor name must not hold the character U+0000', odd.name)
    return header
  } finally {
    freeBuffer(prefix)
    if (isLarge) releaseMemory()
  }
}

/** The core reads headers by code of its own: what the two do not read alike is not published. */
async function readAgain({ tensors, dataOffset }: SafetensorsHeader, prefix: Uint8Array, fileSize: number, core: JobContext['core']): Promise<void> {
  const differently = (how: string, tensor?: string) => new SafetensorsError('read-differently', `the merge core reads the header otherwise (${how}). Write the file again with the safetensors library`, tensor)
  let count = 0
  try {
    for await (const part of core.readHeader(prefix, fileSize)) {
      for (const other of part) {
        const tensor = tensors[count++]
        if (tensor === undefined) continue
        const { name, dtype, shape, begin, end } = tensor
        const [from, to] = [dataOffset + begin, dataOffset + end]
        if (other.name !== name || other.dtype !== dtype || other.begin !== from || other.end !== to || `${other.shape}` !== `${shape}`) {
          throw differently(`${dtype} [${shape}] at bytes ${from} to ${to} is ${JSON.stringify(other.name)}, ${other.dtype} [${other.shape}] at bytes ${other.begin} to ${other.end}`, name)
        }
      }
    }
  } catch (error) {
    throw error instanceof CoreError && error.status === 'invalid' ? differently(error.message) : error
  }
  if (count !== tensors.length) throw differently(`${count} tensors instead of ${tensors.length}`)
}

/** A header covers its file without a hole, so the tensors' bytes follow each other. */
async function scanTensors(scan: Scan, { tensors, dataOffset }: SafetensorsHeader): Promise<ManifestTensor[]> {
  const { file, options, findings } = scan
  const longest = Math.min(TILE_BYTES, tensors.reduce((most, { begin, end }) => Math.max(most, end - begin), 1))
  const tiles = [Buffer.allocUnsafeSlow(longest), Buffer.allocUnsafeSlow(longest)]
  const scanned: ManifestTensor[] = []
  let turn = 0
  // The core counts one tile in its own thread while this one reads and hashes the next.
  let counting: Promise<void> = Promise.resolve()
  try {
    for (const tensor of tensors) {
      const length = tensor.end - tensor.begin
      // What is read at once needs no object that lives on.
      const hashing = length > TILE_BYTES ? createHash('sha256') : null
      let digest = length === 0 ? sha256('') : null
      const figures = { nonFinite: 0 }
      for (let at = 0; at < length; at += TILE_BYTES) {
        const bytes = await take(scan, tiles[turn++ % 2]!.subarray(0, Math.min(TILE_BYTES, length - at)))
        if (hashing === null) digest = sha256(bytes)
        else hashing.update(bytes)
        await counting
        counting = options.core.countNonFinite(bytes, tensor.dtype).then((count) => void (figures.nonFinite += count))
        counting.catch(() => undefined)
      }
      await counting
      if (figures.nonFinite > 0) findings.push(nonFiniteFinding(file.path, tensor, figures.nonFinite))
      scanned.push({ name: tensor.name, dtype: tensor.dtype, shape: tensor.shape, file: file.path, offset: dataOffset + tensor.begin, length, digest: `sha256:${digest ?? hashing!.digest('hex')}` })
    }
  } finally {
    await counting.catch(() => undefined)
    tiles.forEach(freeBuffer)
  }
  return scanned
}

function sha256(bytes: Uint8Array | string): string {
  return hash('sha256', bytes, 'hex')
}

function nonFiniteFinding(file: string, tensor: TensorInfo, count: number): Finding {
  return { code: 'non-finite', file, tensor: tensor.name, message: `The tensor ${tensor.name} in ${file} holds ${count} values that are NaN or infinite.` }
}

async function readText(scan: Scan, cap: number): Promise<string | null> {
  const { file, findings } = scan
  if (file.size > cap) {
    findings.push({ code: 'file-too-large', file: file.path, message: `${file.path} has ${file.size} bytes; at most ${cap} are read.` })
    return null
  }
  const bytes = Buffer.allocUnsafeSlow(file.size)
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await take(scan, bytes))
    if (isKeepable(text)) return text
    findings.push({ code: 'bad-character', file: file.path, message: `${file.path} holds the character U+0000, which no text has. Remove it.` })
    return null
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    findings.push({ code: 'bad-utf8', file: file.path, message: `${file.path} is not valid UTF-8.` })
    return null
  } finally {
    freeBuffer(bytes)
  }
}

async function hashRest(scan: Scan): Promise<void> {
  const tile = Buffer.allocUnsafeSlow(Math.min(TILE_BYTES, Math.max(1, scan.file.size)))
  while ((await take(scan, tile)).byteLength > 0);
}
