import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError, type ServerConfig } from './config.ts'
import { connectDatabase, type ConnectedDatabase } from './connect-database.ts'
import { lockDataFolder } from './data-folder.ts'

/**
 * The database of a registry, for a command that works on it without serving. The embedded one has one user at a time, so its
 * server must not be running; a PostgreSQL server may serve at the same time. Throws ConfigError, also where there is no registry.
 */
export async function withDatabase<T>(config: ServerConfig, work: (database: ConnectedDatabase) => Promise<T>): Promise<T> {
  if (config.databaseUrl !== undefined) return connected(config, work)
  const isThere = await stat(join(config.data, 'database')).then(() => true, () => false)
  if (!isThere) throw new ConfigError(`There is no registry in ${config.data}: name its folder with --data, or its database with DATABASE_URL.`)
  return alone(config, work)
}

/** The same, where the registry need not be there yet; no server may use the data folder, whichever the database is. */
export async function alone<T>(config: ServerConfig, work: (database: ConnectedDatabase) => Promise<T>): Promise<T> {
  const lock = await lockDataFolder(config.data, (error) => {
    throw error
  })
  try {
    return await connected(config, work)
  } finally {
    await lock.release()
  }
}

async function connected<T>(config: ServerConfig, work: (database: ConnectedDatabase) => Promise<T>): Promise<T> {
  const database = await connectDatabase(config)
  try {
    return await work(database)
  } finally {
    await database.close()
  }
}
