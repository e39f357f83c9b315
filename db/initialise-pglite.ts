/** `node db/initialise-pglite.ts FOLDER`: makes an empty database there and ends. See `initialise` in pglite.ts. */
import { openPglite } from './pglite.ts'

const folder = process.argv[2]
if (folder === undefined) throw new Error('Usage: node db/initialise-pglite.ts FOLDER')
const { close } = await openPglite(folder, { initialise: 'here' })
await close()
process.exit(0)
