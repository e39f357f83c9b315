import { stat } from 'node:fs/promises'
import { checkModelVersion, parseReference, selectVersion, type Reference } from '../patch/reference.ts'
import type { PatchPackage, PatchVersionSummary, Registry, VersionName } from './client.ts'
import { CliError, EXIT, usageError } from './exit.ts'

/** `org/name@version` of a model. Without a version the error lists those that exist. */
export async function modelVersionName(registry: Registry, text: string): Promise<VersionName> {
  const { organization, name, selector } = parseUnweighted(text)
  if (selector !== null) {
    checkModelVersion(selector)
    return { organization, name, version: selector }
  }
  const { versions } = await registry.getModel(organization, name)
  const published = versions.filter(({ state }) => state === 'published').map(({ version }) => `${organization}/${name}@${version}`)
  throw usageError(`${text} names no version. ${published.length === 0 ? 'It has no published one yet.' : `Write one of: ${published.join(', ')}.`}`)
}

/** Whether an argument that may be a folder too is `org/name@version` of a registry. Throws where it could be both. */
export async function isModelReference(text: string): Promise<boolean> {
  if (!/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*@/.test(text)) return false
  const isFolder = await stat(text).then((found) => found.isDirectory(), () => false)
  if (isFolder) throw usageError(`${text} is a folder here, and may be a model of the registry: for the folder, write ./${text}.`)
  return true
}

/** `org/name@version` of a patch, with an exact version: what changes a version must not guess which. */
export function exactPatchVersion(text: string): VersionName {
  const { organization, name, selector } = parseUnweighted(text)
  if (selector === null) throw usageError(`${text} names no version: write ${organization}/${name}@1.0.0, say.`)
  return { organization, name, version: selector }
}

/** `org/name`, and nothing behind it. */
export function familyName(text: string): { organization: string; name: string } {
  const { organization, name, selector } = parseUnweighted(text)
  if (selector !== null) throw usageError(`${text} names a version; only ${organization}/${name} is meant here.`)
  return { organization, name }
}

/** The version of a patch that its selector (version, range or tag) picks, as the registry would. */
export function pickPatchVersion(patch: PatchPackage, selector: string | null): PatchVersionSummary {
  const published = patch.versions.filter(({ state }) => state === 'published')
  const selection = selectVersion(selector, published.map((summary) => ({ version: summary.version, yanked: summary.yanked !== null, summary })), patch.distTags)
  if (selection.version === null) throw new CliError(EXIT.notFound, 'not_found', `${patch.organization}/${patch.name}: ${selection.message}`)
  return selection.version.summary
}

function parseUnweighted(text: string): Reference {
  const reference = parseReference(text)
  if (reference.weight !== 1) throw usageError(`${text} has a weight (:${reference.weight}), which only a patch of a merge may have.`)
  return reference
}
