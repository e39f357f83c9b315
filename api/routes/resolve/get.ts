import { createRoute, z } from '@hono/zod-openapi'
import type { App } from '../../app.ts'
import { REASON_CODES, SEVERITIES, VERDICTS } from '../../../patch/resolution.ts'
import { resolvePatches } from '../../services/resolutions/resolve.ts'
import { AnalysisParts } from '../analyses/analysis-schema.ts'
import { How, TaskScore } from '../evaluations/evaluation-schema.ts'
import { errorResponses, jsonContent } from '../error-responses.ts'
import { DerivationOptions, PatchReferences } from '../merged/merged-schema.ts'
import { Digest } from '../runner/runner-schema.ts'
import { tokenOptional } from '../security.ts'

const Reason = z
  .object({
    code: z.enum(REASON_CODES), severity: z.enum(SEVERITIES), message: z.string(), remedy: z.string().optional(),
    tensor: z.string().optional(), expected: z.string().optional(), found: z.string().optional(),
  })
  .openapi('Reason')
const Version = z.object({ reference: z.string(), digest: Digest })

const measured = { id: z.uuid(), measured: z.object({ by: z.string(), at: z.iso.datetime() }) }
const EvidenceScore = TaskScore.extend({ alone: TaskScore.pick({ value: true, stderr: true }).nullable() }).openapi('EvidenceScore', { description: 'With the score of the target alone, where the same question was put to it.' })
const Transfer = z
  .object({
    runs: z.int(), tasks: z.int(), readDrift: z.number().nullable(),
    band: z.object({ from: z.number(), to: z.number(), runs: z.int(), tasks: z.int(), transferred: z.int(), medianKept: z.number(), verdict: z.enum(['likely', 'open', 'unlikely']) }).nullable()
      .openapi({ description: 'Our own ports whose read drift was like this one’s; null where nothing is claimed.' }),
    says: z.string(),
  })
  .openapi('Transfer', { description: 'What became of this program’s own ports (docs/analysis.md). It rests on `runs` ports of `tasks` tasks.' })
const Evidence = z
  .discriminatedUnion('kind', [
    z.object({ kind: z.literal('analysis'), ...measured, parts: AnalysisParts, transfer: Transfer }),
    z.object({ kind: z.literal('evaluation'), ...measured, how: How, num_fewshot: z.int().nullable(), limit: z.int().nullable(), scores: z.array(EvidenceScore) }),
  ])
  .openapi('Evidence', { description: 'What was measured of the patch on this target, and who says so. It does not enter the verdict.' })

const Resolution = z
  .object({
    verdict: z.enum(VERDICTS),
    target: Version,
    patches: z.array(Version.extend({
      weight: z.number(), base: Version, verdict: z.enum(VERDICTS), reasons: z.array(Reason), edits: z.int(),
      lineage: z.object({ relation: z.enum(['same', 'descends', 'unrelated']), steps: z.array(z.object({ version: z.string(), kind: z.string() })) }),
      evidence: z.array(Evidence),
    })),
    derivation: z.string().nullable().openapi({ description: 'Id of the merged model; null where it cannot be.' }),
    merged: z.enum(['ready', 'queued', 'absent']).nullable(),
  })
  .openapi('Resolution')

const route = createRoute({
  method: 'get',
  path: '/v1/resolve',
  operationId: 'resolvePatches',
  tags: ['merging'],
  summary: 'May these patches go onto this target?',
  security: tokenOptional,
  request: { query: z.object({ patch: PatchReferences, target: z.string().openapi({ example: 'lab/mistral@2.0' }), ...DerivationOptions.shape }) },
  responses: { 200: jsonContent(Resolution, 'The verdict and every reason for it.'), ...errorResponses(404, 409, 410) },
})

export function registerResolvePatches(app: App): void {
  app.openapi(route, async (c) => {
    const { patch, target, ...options } = c.req.valid('query')
    return c.json((await resolvePatches({ ctx: c.var.ctx, input: { target, patches: patch, options } })) as z.infer<typeof Resolution>, 200)
  })
}
