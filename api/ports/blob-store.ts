/** A signed request that a client or runner can make without any other credential. */
export interface SignedRequest {
  readonly method: 'GET' | 'PUT'
  /** Absolute. */
  readonly url: string
  /** Headers that must be sent with it. */
  readonly headers: Readonly<Record<string, string>>
}

/** How long a signed request may be used. */
export const SIGNED_REQUEST_SECONDS = 3600

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

/** A part of a staged object. */
export interface StagedPart {
  readonly number: number
  readonly size: number
}

export interface StoredObject {
  readonly key: string
  /** Bytes, those of parts that are not joined yet included. */
  readonly size: number
  /** When it was last written, by the clock of the store. */
  readonly modifiedAt: Date
}

/** What every key begins with. `incoming`: bytes on their way in, which have no other name until all have arrived. */
export type KeyPrefix = 'blobs' | 'uploads' | 'attempts' | 'incoming'

/**
 * Where bytes live. Keys: `blobs/sha256/<2 hex>/<64 hex>` for immutable blobs (written only by `promote`,
 * `putBlob` and, where a registry is imported, `write`), `uploads/<upload file id>` for what clients stage, `attempts/<job>/<attempt>/<name>`
 * for what one attempt of a job writes.
 */
export interface BlobStore {
  /**
   * Bytes of a blob range, streamed with backpressure. With `reuse`, a chunk's memory is written again once the next
   * one is asked for. Rejects with `BlobMissingError` when it is not there.
   */
  read(key: string, range: ByteRange, options?: { signal?: AbortSignal; reuse?: boolean }): Promise<ReadableStream<Uint8Array>>
  /** For many reads of one object, each into memory of the caller's. Rejects with `BlobMissingError` when it is not there. */
  open(key: string): Promise<OpenBlob>
  /** Size in bytes, or null when there is no such object. */
  size(key: string): Promise<number | null>
  /** All that is stored under a prefix, in no order. What comes or goes meanwhile may be told or not. */
  list(prefix: KeyPrefix): AsyncIterable<StoredObject>
  /** Stores small bytes made by the registry itself (file headers) under their digest. Idempotent. */
  putBlob(sha256: string, bytes: Uint8Array): Promise<void>
  /** Stores exactly these bytes as the object, whole or not at all; rejects where they are others. What is there is replaced. */
  write(key: string, content: { size: number; sha256: string }, body: AsyncIterable<Uint8Array>): Promise<void>
  signGet(key: string, range: ByteRange | null): Promise<SignedRequest>
  /** A single PUT of exactly `size` bytes. With `sha256` the store itself refuses other bytes. */
  signPut(key: string, put: { size: number; sha256?: string }): Promise<SignedRequest>
  /** A PUT for each of the parts that an object is sent in: all of them, in order, and of one size but the last. */
  signParts(key: string, parts: readonly StagedPart[]): Promise<SignedRequest[]>
  /** Parts that arrived whole, for resuming an upload; one of them all once they are joined. */
  stagedParts(key: string): Promise<StagedPart[]>
  /** Joins the parts of a staged object into one. Idempotent. */
  assemble(key: string, parts: readonly StagedPart[]): Promise<void>
  /**
   * Makes a verified staged object a blob, under its content-addressed key. Idempotent; a blob that is there already wins.
   * The staged object stays until `discard`, which comes after the commit: a transaction that rolls back can be run again.
   */
  promote(key: string, blob: { sha256: string; size: number }): Promise<void>
  /** Removes a staged object, or all under a folder of keys. Idempotent. Blobs are never removed by this. */
  discard(prefix: string): Promise<void>
  /** Removes a blob that nothing in the database refers to. Idempotent. */
  remove(sha256: string): Promise<void>
}

export interface OpenBlob {
  /** Its descriptor, where it is a file of this machine. */
  readonly file?: number
  /** Fills `into` from `position` on. Rejects where the object ends before. */
  read(into: Uint8Array, position: number): Promise<void>
  /** No read may be running. */
  close(): Promise<void>
}

export class BlobMissingError extends Error {
  constructor(key: string) {
    super(`the blob store has no object ${key}`)
    this.name = 'BlobMissingError'
  }
}

const KEY = /^(blobs|uploads|attempts|incoming)(\/[A-Za-z0-9][A-Za-z0-9._-]*)+$/

/** Throws for what is no key: it would be a path out of a folder, or need escaping in a URL. */
export function assertKey(key: string): void {
  if (!KEY.test(key) || key.includes('..')) throw new Error(`${JSON.stringify(key)} is not a key of the blob store`)
}

/** The same, for what may be discarded. */
export function assertStagedKey(key: string): void {
  assertKey(key)
  if (key.startsWith('blobs')) throw new Error('blobs are not discarded')
}

export function blobKey(sha256: string): string {
  return `blobs/sha256/${sha256.slice(0, 2)}/${sha256}`
}
