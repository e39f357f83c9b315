import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { JsonEditError, setJsonMember } from './json-edit.ts'

describe('setJsonMember', () => {
  it('changes a value and no other byte', () => {
    const text = '{\n  "rope_theta": 1e-05,\n  "tie_word_embeddings" : true,\n  "big": 12345678901234567890.0\n}\n'
    expect(setJsonMember(text, ['tie_word_embeddings'], 'false')).toBe(text.replace('true', 'false'))
    expect(setJsonMember('{"a":{"b":[1,{"c":"}"}],"d":"x\\"y"},"e":1}', ['a', 'd'], '2')).toBe('{"a":{"b":[1,{"c":"}"}],"d":2},"e":1}')
    expect(setJsonMember('{"a":{"tie":1},"tie":2}', ['tie'], '3')).toBe('{"a":{"tie":1},"tie":3}')
    expect(setJsonMember('{"t\\u0069e": [1]}', ['tie'], '3')).toBe('{"t\\u0069e": 3}')
  })

  it('adds a member where there is none, spaced as its neighbour', () => {
    expect(setJsonMember('{\n  "a": 1\n}', ['b'], '2')).toBe('{\n  "b": 2,\n  "a": 1\n}')
    expect(setJsonMember('{"a":1}', ['b'], '2')).toBe('{"b": 2, "a":1}')
    expect(setJsonMember('{ }', ['b'], '2')).toBe('{"b": 2 }')
    expect(setJsonMember('{"a":{}}', ['a', 'b'], '2')).toBe('{"a":{"b": 2}}')
  })

  it('names what is no object', () => {
    expect(() => setJsonMember('[]', ['a'], '1')).toThrow(new JsonEditError('the whole is no object'))
    expect(() => setJsonMember('{"a":1}', ['a', 'b'], '1')).toThrow('a is no object')
    expect(() => setJsonMember('{}', ['a', 'b'], '1')).toThrow('there is no a')
  })

  it('does to the text what setting does to the value', () => {
    const objects = fc.dictionary(fc.string().filter((key) => key !== '__proto__'), fc.jsonValue())
    fc.assert(fc.property(objects, fc.string().filter((key) => key !== '__proto__'), fc.jsonValue(), fc.constantFrom(undefined, 1, '\t'), (object, key, value, indent) => {
      const keys = Object.keys(object)
      for (const name of [key, ...keys.slice(0, 1)]) {
        expect(JSON.parse(setJsonMember(JSON.stringify(object, null, indent), [name], JSON.stringify(value)))).toEqual(JSON.parse(JSON.stringify({ ...object, [name]: value })))
      }
    }))
  })
})
