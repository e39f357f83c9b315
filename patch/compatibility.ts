import semver from 'semver'
import { readAdapter } from './adapter.ts'
import type { Adapter } from './adapter.ts'
import { checkConsumption } from './consumption.ts'
import type { Edit } from './edit.ts'
import { adapterEdits } from './edits.ts'
import type { LayOptions } from './laying.ts'
import type { ModelManifest, PatchManifest } from './manifest.ts'
import { info, limitReasons, refusal, warning } from './reason.ts'
import type { Lineage, Reason, ReasonCode, Resolution, Verdict } from './resolution.ts'
import { nameOf, tensorOf, vocabularyParts } from './tied-embeddings.ts'
import type { UntiedHead } from './tied-embeddings.ts'

export { REASON_CODES } from './resolution.ts'

/** What the publisher of the patch says about it. */
export interface PatchPolicy {
  /** Semver range of the target versions that the publisher vouches for, or null for none declared. */
  readonly targetRange: string | null
  /** Version string of the target. */
  readonly targetVersion: string
  /** Set where the patch version has been yanked. */
  readonly yanked: { readonly reason: string | null } | null
  /** The message of a deprecated patch version, or null. */
  readonly deprecated: string | null
}

export interface CompatibilityInput {
  readonly patch: PatchManifest
  /** The version that the patch was trained on. */
  readonly base: { readonly digest: string; readonly manifest: ModelManifest }
  readonly target: { readonly digest: string; readonly manifest: ModelManifest }
  readonly lineage: Lineage
  readonly policy?: PatchPolicy
  readonly options?: Partial<LayOptions>
}

export interface Compatibility {
  readonly resolution: Resolution
  /** Empty where the verdict is `incompatible`. */
  readonly edits: readonly Edit[]
  /** The head that the merged model gets where its embeddings have to be untied, or null. */
  readonly untied: UntiedHead | null
}

/** Warnings that leave nobody to vouch for the result. */
const UNVERIFIED: ReadonlySet<ReasonCode> = new Set(['unrelated', 'tokenizer-changed-under-edit', 'declared-range-unchecked'])

/**
 * May this patch go onto this target (design.md, "Resolution", steps 1 to 4 and 6)? Throws AdapterError for a patch
 * whose files contradict each other, which ingest rejects before it is published.
 *
 * The verdict is the first that holds: `incompatible` with any refusal; `identical` where the target is the base;
 * `unverified` where the target does not descend from the base, where the adapter changes rows of tokens and the
 * tokenizers differ, or where the declared range cannot be read for this target; `portable-with-warnings` with any
 * other warning; `portable`.
 */
export function checkCompatibility(input: CompatibilityInput): Compatibility {
  const adapter = readAdapter(input.patch.adapterConfig, input.patch.tensors)
  const isIdentical = input.base.digest === input.target.digest
  const laid = adapterEdits(adapter, input.target.manifest, input.base.manifest, input.options)
  const { edits, untied, reasons } = laid
  const all = [
    ...(isIdentical ? [info('identical', 'The target is the version that the patch was trained on.')] : []),
    ...(isIdentical ? [] : checkArchitecture(input)),
    ...reasons,
    ...checkConsumption(adapter, laid, reasons),
    ...(isIdentical ? [] : [...checkLineage(input.lineage), ...checkText(input, adapter)]),
    ...(input.policy ? checkPolicy(input.policy, isIdentical) : []),
  ]
  const verdict = verdictOf(all, isIdentical)
  const isRefused = verdict === 'incompatible'
  return { resolution: { verdict, reasons: limitReasons(all) }, edits: isRefused ? [] : edits, untied: isRefused ? null : untied }
}

function verdictOf(reasons: readonly Reason[], isIdentical: boolean): Verdict {
  if (reasons.some(({ severity }) => severity === 'refusal')) return 'incompatible'
  if (isIdentical) return 'identical'
  if (reasons.some(({ code }) => UNVERIFIED.has(code))) return 'unverified'
  return reasons.some(({ severity }) => severity === 'warning') ? 'portable-with-warnings' : 'portable'
}

/** Model types that differ may share every name and shape (Llama and Mistral do), so only a common descent excuses it. */
function checkArchitecture({ base, target, lineage }: CompatibilityInput): Reason[] {
  const expected = base.manifest.facts.modelType
  const found = target.manifest.facts.modelType
  if (expected === null || found === null || expected === found) return []
  const message = `The patch was trained on a model of the type ${expected}; the target is of the type ${found}.`
  return lineage.relation === 'unrelated'
    ? [refusal('architecture', message, { expected, found, remedy: 'Choose a target that descends from the base.' })]
    : [warning('architecture', message, { expected, found })]
}

function checkLineage({ relation, steps }: Lineage): Reason[] {
  if (relation === 'unrelated') {
    return [warning('unrelated', 'The registry knows of no descent of the target from the version that the patch was trained on.', {
      remedy: 'Measure the merged model before relying on it, or publish the target with its parent.',
    })]
  }
  if (relation === 'same') return []
  const path = steps.map(({ version, kind }) => `${version} (${kind})`).join(', ')
  return [info('descends', `The target descends from the base in ${steps.length === 1 ? 'one step' : `${steps.length} steps`}: ${path}.`)]
}

/** The tokenizer and the chat template: what the model reads, and so what the patch has learned to answer. */
function checkText({ base, target }: CompatibilityInput, adapter: Adapter): Reason[] {
  const reasons: Reason[] = []
  const { tokenizerDigest: tokenizer, chatTemplateDigest: template } = base.manifest.facts
  const facts = target.manifest.facts
  if (tokenizer !== facts.tokenizerDigest) {
    const details = { expected: tokenizer ?? 'none', found: facts.tokenizerDigest ?? 'none' }
    const [edited] = vocabularyParts(adapter)
    reasons.push(
      edited === undefined
        ? warning('tokenizer-changed', "The target's tokenizer files are not those of the base.", { ...details, remedy: 'Make sure that the tokens of the base still mean the same.' })
        : warning('tokenizer-changed-under-edit', `The target's tokenizer files are not those of the base, and the patch changes rows of single tokens (${nameOf(edited)}).`, { ...details, tensor: tensorOf(edited), remedy: 'Make sure that each token of the base still has its number.' }),
    )
  }
  if (template !== facts.chatTemplateDigest) {
    reasons.push(warning('chat-template-changed', "The target's chat template is not that of the base.", {
      expected: template ?? 'none', found: facts.chatTemplateDigest ?? 'none', remedy: 'Prompt the merged model with the template that the patch was trained with.',
    }))
  }
  return reasons
}

function checkPolicy({ targetRange, targetVersion, yanked, deprecated }: PatchPolicy, isIdentical: boolean): Reason[] {
  const reasons: Reason[] = []
  if (targetRange !== null && !isIdentical) reasons.push(...checkRange(targetRange, targetVersion))
  if (yanked !== null) {
    reasons.push(warning('yanked', `This version of the patch has been yanked${yanked.reason ? `: ${yanked.reason}` : '.'}`, { remedy: 'Choose another version.' }))
  }
  if (deprecated !== null) reasons.push(warning('deprecated', `This version of the patch is deprecated: ${deprecated}`))
  return reasons
}

/** Model versions are free strings: a range says nothing about one that is not a semantic version. */
function checkRange(range: string, version: string): Reason[] {
  const parsed = semver.parse(version, { loose: true })
  if (semver.validRange(range) === null || parsed === null) {
    return [warning('declared-range-unchecked', `The publisher declares the patch for the target versions ${range}; whether ${version} is one of them cannot be told.`, { expected: range, found: version })]
  }
  if (semver.satisfies(parsed, range)) return []
  return [refusal('outside-declared-range', `The publisher declares the patch for the target versions ${range}, and ${version} is not one of them.`, {
    expected: range, found: version, remedy: 'Choose a target in the range, or ask the publisher to widen it.',
  })]
}
