import { describe, expect, it } from 'vitest'
import type { Log } from './ports/log.ts'
import { answerProbe, createReadiness } from './readiness.ts'

const lines: object[] = []
const log: Log = { info() {}, warn: (fields) => void lines.push(fields), error() {}, child: () => log }

describe('readiness', () => {
  it('goes from starting to ready, broken and draining', async () => {
    const readiness = createReadiness(log)
    const ask = async () => {
      const response = await answerProbe(new Request('http://x/readyz'), readiness)
      return [response.status, await response.json()]
    }
    expect(await ask()).toEqual([503, { status: 'starting', parts: {} }])
    let isBroken = false
    readiness.start({ database: async () => {}, blobs: async () => { if (isBroken) throw new Error('inner words') } })
    expect(await ask()).toEqual([200, { status: 'ready', parts: { database: 'ok', blobs: 'ok' } }])
    isBroken = true
    expect(await ask()).toEqual([503, { status: 'broken', parts: { database: 'ok', blobs: 'failing' } }])
    // Why is for the log.
    expect(lines).toMatchObject([{ part: 'blobs', err: { message: 'inner words' } }])
    isBroken = false
    readiness.drain()
    expect(await ask()).toEqual([503, { status: 'draining', parts: { database: 'ok', blobs: 'ok' } }])
    expect((await answerProbe(new Request('http://x/healthz'), readiness)).status).toBe(200)
  })

  it('takes a part that does not answer for one that fails', async () => {
    const readiness = createReadiness(log, { timeoutMs: 10 })
    readiness.start({ database: () => new Promise(() => {}) })
    expect(await readiness.check()).toEqual({ status: 'broken', parts: { database: 'failing' } })
  })
})
