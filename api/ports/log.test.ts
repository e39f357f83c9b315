import { DrizzleQueryError } from 'drizzle-orm/errors'
import { describe, expect, it } from 'vitest'
import { describeError } from './log.ts'

describe('an error in the log', () => {
  it('of a query has its text, its cause, and none of its values', () => {
    const cause = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED', parameters: ['a private key'] })
    const described = describeError(new DrizzleQueryError('insert into settings values ($1)', ['a private key'], cause))
    expect(described).toMatchObject({ message: 'Failed query: insert into settings values ($1)', stack: expect.stringContaining('log.test.ts'), cause: { message: 'connection refused', code: 'ECONNREFUSED' } })
    expect(JSON.stringify(described)).not.toContain('private key')
  })

  it('has nothing else that it carries', () => {
    const error = (() => { try { return new URL('//secret') } catch (thrown) { return thrown } })()
    expect(Object.keys(describeError(Object.assign(error as Error, { input: 'secret' }))).sort()).toEqual(['code', 'message', 'stack', 'type'])
    expect(describeError('just words')).toEqual({ message: 'just words' })
  })
})
