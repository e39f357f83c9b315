import { describe, expect, it } from 'vitest'
import { contentHeaders } from './file-headers.ts'

describe('contentHeaders', () => {
  it.each([
    ['config.json', 'application/json', "inline; filename*=UTF-8''config.json"],
    ['README.md', 'text/markdown; charset=utf-8', "inline; filename*=UTF-8''README.md"],
    ['folder/merges.TXT', 'text/plain; charset=utf-8', "inline; filename*=UTF-8''merges.TXT"],
    ['model.safetensors', 'application/octet-stream', "attachment; filename*=UTF-8''model.safetensors"],
    ['index.html', 'application/octet-stream', "attachment; filename*=UTF-8''index.html"],
    ['picture.svg', 'application/octet-stream', "attachment; filename*=UTF-8''picture.svg"],
    ['x.constructor', 'application/octet-stream', "attachment; filename*=UTF-8''x.constructor"],
    ['LICENSE', 'application/octet-stream', "attachment; filename*=UTF-8''LICENSE"],
    ['a/b/"; filename=evil.exe', 'application/octet-stream', "attachment; filename*=UTF-8''%22%3B%20filename%3Devil.exe"],
    ["it's (1)*.bin", 'application/octet-stream', "attachment; filename*=UTF-8''it%27s%20%281%29%2A.bin"],
    ['gewicht-größe-模型.json', 'application/json', "inline; filename*=UTF-8''gewicht-gr%C3%B6%C3%9Fe-%E6%A8%A1%E5%9E%8B.json"],
    ['a\r\nSet-Cookie: x=1', 'application/octet-stream', "attachment; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x%3D1"],
    ['lone\ud800.json', 'application/json', "inline; filename*=UTF-8''lone%EF%BF%BD.json"],
  ])('%j', (path, type, disposition) => {
    expect(contentHeaders(path)).toEqual({ 'Content-Type': type, 'Content-Disposition': disposition })
    expect(() => new Headers(contentHeaders(path))).not.toThrow()
  })
})
