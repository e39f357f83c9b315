import type { Sql } from 'postgres'
import type { RunTraced } from './traces.ts'

/** What drizzle calls of the client and of a transaction's; the rest passes through. */
const NESTED = new Set<PropertyKey>(['begin', 'savepoint'])

/** Around a postgres.js client: a span for each query, with its text and without its values. */
export function createSqlTracer(runTraced: RunTraced): (sql: Sql) => Sql {
  function wrap<T extends object>(sql: T): T {
    return new Proxy(sql, {
      get(target, name, receiver) {
        const value: unknown = Reflect.get(target, name, receiver)
        if (typeof value !== 'function') return value
        if (name === 'unsafe') return (...args: unknown[]) => trace(value.apply(target, args) as Promise<unknown>, String(args[0]))
        if (NESTED.has(name)) {
          return (...args: unknown[]) => value.apply(target, args.map((arg) => (typeof arg === 'function' ? (inner: object) => (arg as (sql: object) => unknown)(wrap(inner)) : arg)))
        }
        return value
      },
    })
  }

  /** A query is lazy, and its caller may still choose the form of its rows: it starts in the next microtask, so looking at it now is early enough. */
  function trace<Q extends Promise<unknown>>(query: Q, text: string): Q {
    runTraced(`query ${text.slice(0, text.search(/\s|$/))}`, { 'db.system.name': 'postgresql', 'db.query.text': text }, () => query).catch(() => {})
    return query
  }

  return (sql) => wrap(sql)
}
