import { Option, type Command } from 'commander'
import { ConfigError, readConfig } from '../config.ts'
import { withDatabase } from '../open-registry.ts'
import { systemClock } from '../ports/clock.ts'
import { rotateKeys, type RotatedKeys } from '../services/settings/rotate-keys.ts'

export function addRotateKeys(program: Command): void {
  program
    .command('rotate-keys')
    .description("gives the registry new keys for runners' tokens and, in a data folder, for signed URLs; nothing that runs is disturbed")
    .addOption(new Option('--data <folder>', "the embedded registry's folder; its server must not be running"))
    .option('--json', 'answer with one line of JSON')
    .action(async ({ data, json }: { data?: string; json?: true }) => {
      const rotated = await withDatabase(readConfig({ data }, process.env), ({ db }) => rotateKeys({ ctx: { db, clock: systemClock } }))
      if (rotated === null) throw new ConfigError('There is no key to rotate: the registry has never been started, or was given a new key that does not sign yet. Wait for some minutes.')
      console.log(json ? JSON.stringify(rotated) : describe(rotated))
    })
}

function describe({ signing, blobUrls }: RotatedKeys): string {
  return [
    `The key ${signing.added} signs runners' tokens from ${signing.signsFrom}; until then every server learns of it.`,
    signing.forgotten.length === 0 ? 'The key before it checks tokens for a day more.' : `Forgotten: ${signing.forgotten.join(', ')}.`,
    ...(blobUrls ? ['Signed URLs have a new key from the next start of the server; those that were given out before end then.'] : []),
  ].join('\n')
}
