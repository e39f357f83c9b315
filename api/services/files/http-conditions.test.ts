import { describe, expect, it } from 'vitest'
import { answerFileRequest, type ConditionalHeaders } from './http-conditions.ts'

const ETAG = 'ab'.repeat(32)
const TAG = `"${ETAG}"`
const OTHER = `"${'cd'.repeat(32)}"`
const RANGE = 'bytes=1-2'
const PART = { status: 206, range: { offset: 1, length: 2 } }

function ask(headers: Partial<ConditionalHeaders>, method = 'GET') {
  return answerFileRequest({
    method,
    headers: { ifMatch: undefined, ifNoneMatch: undefined, ifRange: undefined, range: undefined, ...headers },
    etag: ETAG,
    size: 10,
  })
}

describe('answerFileRequest', () => {
  it.each<[string, Partial<ConditionalHeaders>, unknown]>([
    ['nothing', {}, { status: 200 }],
    ['a range', { range: RANGE }, PART],
    ['a range beyond the end', { range: 'bytes=10-' }, { status: 416 }],
    ['two ranges', { range: 'bytes=0-1,3-4' }, { status: 200 }],

    ['If-None-Match with the tag', { ifNoneMatch: TAG }, { status: 304 }],
    ['… weak: the comparison is weak', { ifNoneMatch: `W/${TAG}` }, { status: 304 }],
    ['… *', { ifNoneMatch: '*' }, { status: 304 }],
    ['… another', { ifNoneMatch: OTHER }, { status: 200 }],
    ['… a list with it', { ifNoneMatch: `${OTHER}, W/"x" ,${TAG}` }, { status: 304 }],
    ['… a list without it', { ifNoneMatch: `${OTHER}, "x"` }, { status: 200 }],
    ['… a tag that holds commas', { ifNoneMatch: `"a,b", ${TAG}` }, { status: 304 }],
    ['… a tag that holds the tag', { ifNoneMatch: `"x${ETAG}"` }, { status: 200 }],
    ['… empty elements', { ifNoneMatch: `, ,${TAG},` }, { status: 304 }],
    ['… without quotes', { ifNoneMatch: ETAG }, { status: 200 }],
    ['… w/ in lower case', { ifNoneMatch: `w/${TAG}` }, { status: 200 }],
    ['… no comma between', { ifNoneMatch: `"x" ${TAG}` }, { status: 200 }],
    ['… empty', { ifNoneMatch: '' }, { status: 200 }],
    ['… beats Range', { ifNoneMatch: TAG, range: RANGE }, { status: 304 }],
    ['… beats a bad Range', { ifNoneMatch: TAG, range: 'bytes=10-' }, { status: 304 }],
    ['… false, with Range', { ifNoneMatch: OTHER, range: RANGE }, PART],

    ['If-Match with the tag', { ifMatch: TAG }, { status: 200 }],
    ['… weak: the comparison is strong', { ifMatch: `W/${TAG}` }, { status: 412 }],
    ['… *', { ifMatch: ' * ' }, { status: 200 }],
    ['… another', { ifMatch: OTHER }, { status: 412 }],
    ['… a list with it', { ifMatch: `${OTHER},${TAG}` }, { status: 200 }],
    ['… malformed', { ifMatch: ETAG }, { status: 412 }],
    ['… false beats If-None-Match', { ifMatch: OTHER, ifNoneMatch: TAG }, { status: 412 }],
    ['… false beats a bad Range', { ifMatch: OTHER, range: 'bytes=10-' }, { status: 412 }],
    ['… true, then If-None-Match', { ifMatch: TAG, ifNoneMatch: TAG }, { status: 304 }],
    ['… true, with Range', { ifMatch: TAG, range: RANGE }, PART],

    ['If-Range with the tag', { ifRange: TAG, range: RANGE }, PART],
    ['… another', { ifRange: OTHER, range: RANGE }, { status: 200 }],
    ['… weak', { ifRange: `W/${TAG}`, range: RANGE }, { status: 200 }],
    ['… a list is not one tag', { ifRange: `${TAG}, ${TAG}`, range: RANGE }, { status: 200 }],
    ['… a date', { ifRange: 'Tue, 15 Nov 2044 12:45:26 GMT', range: RANGE }, { status: 200 }],
    ['… false makes a bad Range harmless', { ifRange: OTHER, range: 'bytes=10-' }, { status: 200 }],
    ['… true leaves a bad Range bad', { ifRange: TAG, range: 'bytes=10-' }, { status: 416 }],
    ['… without Range', { ifRange: OTHER }, { status: 200 }],
  ])('%s', (_name, headers, expected) => {
    expect(ask(headers)).toEqual(expected)
  })

  it('ignores Range for HEAD, but not the conditions', () => {
    expect(ask({ range: RANGE }, 'HEAD')).toEqual({ status: 200 })
    expect(ask({ range: 'bytes=10-' }, 'HEAD')).toEqual({ status: 200 })
    expect(ask({ ifNoneMatch: TAG, range: RANGE }, 'HEAD')).toEqual({ status: 304 })
    expect(ask({ ifMatch: OTHER }, 'HEAD')).toEqual({ status: 412 })
  })
})
