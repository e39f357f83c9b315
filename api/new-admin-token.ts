import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ConfigError, type ServerConfig } from './config.ts'
import { connectDatabase } from './connect-database.ts'
import { lockDataFolder } from './data-folder.ts'
import { systemClock } from './ports/clock.ts'
import { replaceAdminToken } from './services/tokens/replace-admin.ts'

/**
 * A new token for the administrator of a registry whose token is lost. The embedded database has one user at a time, so
 * its server must not be running; a PostgreSQL server may. Throws ConfigError.
 */
export async function newAdminToken(config: ServerConfig): Promise<string> {
  const lock = config.databaseUrl === undefined ? await lockRegistry(config.data) : null
  try {
    const { db, close } = await connectDatabase(config)
    try {
      const token = await replaceAdminToken({ ctx: { db, clock: systemClock } })
      if (token === null) throw new ConfigError('This registry has no administrator yet. Start the server: it shows the first token.')
      return token
    } finally {
      await close()
    }
  } finally {
    await lock?.release()
  }
}

async function lockRegistry(data: string) {
  const isThere = await stat(join(data, 'database')).then(() => true, () => false)
  if (!isThere) throw new ConfigError(`There is no registry in ${data}: name its folder with --data, or its database with DATABASE_URL.`)
  return lockDataFolder(data, (error) => {
    throw error
  })
}
