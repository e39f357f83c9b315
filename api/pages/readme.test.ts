import { expect, it } from 'vitest'
import { patchPage, renderReadme } from './patch.ts'

it('drops the front matter and whatever could run', () => {
  const rendered = renderReadme('---\nlicense: mit\n---\n# Title\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1)) ![i](https://e.org/a.png)<img src=x onerror=alert(1)>')
  expect(rendered).toContain('<h1>Title</h1>')
  expect(rendered).toContain('https://e.org/a.png')
  expect(rendered).not.toMatch(/license|script|onerror|alert/)
})

it('escapes what publishers write', async () => {
  const page = String(await patchPage({ reference: 'org/p', description: '<b>bold</b>', readme: null, distTags: {}, versions: [{ version: '1.0.0', state: 'published', base: { reference: 'org/m@1' }, publishedAt: null, yanked: { reason: '"><script>' }, deprecated: null }] }, []))
  expect(page).toContain('&lt;b&gt;bold')
  expect(page).not.toContain('<script>')
})
