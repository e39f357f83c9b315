import type { Config } from 'drizzle-kit'

export const config: Config = { dialect: 'postgresql', schema: './db/schema.ts', out: './db/migrations' }
// drizzle-kit reads its configuration from the default export and nowhere else.
export default config
