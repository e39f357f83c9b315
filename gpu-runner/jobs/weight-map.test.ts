import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readWeightMap } from './weight-map.ts'

function entries(text: string): [string, string][] {
  const read: [string, string][] = []
  readWeightMap(text, (name, shard) => read.push([name, shard]))
  return read
}

test('entries are read as JSON.parse reads them, whatever else is there', () => {
  const other = fc.dictionary(fc.string({ unit: 'binary' }).filter((key) => key !== 'weight_map' && key !== '__proto__'), fc.jsonValue(), { maxKeys: 3 })
  fc.assert(fc.property(other, fc.dictionary(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' })), other, fc.constantFrom(undefined, 1, '\t'), (before, map, after, space) => {
    const text = JSON.stringify({ ...before, weight_map: map, ...after }, null, space)
    expect(entries(text)).toEqual(Object.entries((JSON.parse(text) as { weight_map: object }).weight_map))
  }), { numRuns: 500, seed: 20261125 })
})

test('what JSON.parse refuses is refused, with any character of an index changed, left out or doubled', () => {
  const sound = '{"metadata": {"total_size": 12e3, "a": [true, null, "}\\""]}, "weight_map": {"x\\n\\u0041": "a.safetensors", "y": "b"} }'
  expect(entries(sound)).toEqual([['x\nA', 'a.safetensors'], ['y', 'b']])
  let refused = 0
  for (let at = 0; at <= sound.length; at++) {
    for (const odd of ['', ...'{}[]",:\\ 0-etu\u00a0\n']) {
      for (const text of [sound.slice(0, at) + odd + sound.slice(at + 1), sound.slice(0, at) + odd + sound.slice(at), sound.slice(0, at)]) {
        let isJson = true
        try {
          JSON.parse(text)
        } catch {
          isJson = false
        }
        if (isJson) continue
        refused++
        expect(() => entries(text), text).toThrow(SyntaxError)
      }
    }
  }
  expect(refused).toBeGreaterThan(3000)
})

describe('refuses', () => {
  test.each<[string, string, RegExp]>([
    ['a list', '[]', /no JSON object at its character 0/],
    ['nothing', '', /ends too early/],
    ['no map', '{"a":1}', /no weight_map/],
    ['a map that is none', '{"weight_map":[]}', /no weight_map/],
    ['a file that is no name', '{"weight_map":{"x":1}}', /no weight_map/],
    ['two maps', '{"weight_map":{},"weight\\u005fmap":{}}', /"weight_map" appears twice/],
    ['another key twice', '{"a":1,"a":1,"weight_map":{}}', /"a" appears twice/],
    ['a key twice further in', '{"metadata":{"a":1,"a":1},"weight_map":{}}', /"a" appears twice/],
    ['much beside the map', `{"a":"${'x'.repeat(1 << 20)}","weight_map":{}}`, /longer than 1048576 characters/],
    ['a text behind it', '{"weight_map":{}}{}', /no JSON object at its character 17/],
  ])('%s', (_name, text, message) => {
    expect(() => entries(text)).toThrow(message)
  })
})

test('a name comes as often as it is there', () => {
  expect(entries('{"weight_map":{"x":"a","x":"b","__proto__":"c"}}')).toEqual([['x', 'a'], ['x', 'b'], ['__proto__', 'c']])
})
