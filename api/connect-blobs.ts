import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import type { Database } from '../db/database.ts'
import type { App } from './app.ts'
import { ConfigError, type ServerConfig } from './config.ts'
import type { BlobStore } from './ports/blob-store.ts'
import { systemClock } from './ports/clock.ts'
import { registerBlobRoutes } from './ports/directory-blob-routes.ts'
import { createDirectoryBlobStore } from './ports/directory-blob-store.ts'
import { createS3BlobStore } from './ports/s3-blob-store.ts'
import { readBlobKey } from './services/settings/blob-key.ts'

export interface ConnectedBlobs {
  readonly blobs: BlobStore
  /** Nobody else writes to the store. */
  readonly isAlone: boolean
  /** Rejects, saying why, where the store cannot be used now. */
  check(): Promise<void>
  /** Adds the routes that signed URLs lead to, where that is this server. */
  register(app: App): void
}

/** The blob store of the configuration: a bucket, or the data folder. Throws ConfigError where the bucket cannot be used. */
export async function connectBlobs({ config, db, publicUrl }: { config: ServerConfig; db: Database; publicUrl: string }): Promise<ConnectedBlobs> {
  if (config.s3 === undefined) {
    const blobs = createDirectoryBlobStore({ folder: config.data, publicUrl, key: await readBlobKey(db), clock: systemClock })
    return { blobs, isAlone: true, check: () => access(config.data, constants.R_OK | constants.W_OK), register: (app) => registerBlobRoutes(app, blobs) }
  }
  const blobs = createS3BlobStore({ settings: config.s3, clock: systemClock })
  await blobs.check().catch((error: Error) => {
    throw new ConfigError(`PORTLLM_S3_BUCKET: ${error.message}. Are the key's permissions those of docs/operations.md?`)
  })
  return { blobs, isAlone: false, check: blobs.check, register() {} }
}
