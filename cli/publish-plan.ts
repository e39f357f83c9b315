import { checkModelVersion, checkPatchVersion, formatReference, parseReference } from '../patch/reference.ts'
import type { NewDatasetVersion, NewModelVersion, NewPatchVersion, VersionName } from './client.ts'
import { usageError } from './exit.ts'
import type { FolderKind } from './folder-kind.ts'
import type { PublishFile } from './portllm-file.ts'

interface Named {
  readonly version: VersionName
  /** `org/name@version`. */
  readonly reference: string
}

/** With the body of the PUT, but for its files. */
export type PublishPlan =
  | (Named & { readonly kind: 'patch'; readonly resource: 'patches'; readonly body: Omit<NewPatchVersion, 'files'> })
  | (Named & { readonly kind: 'model'; readonly resource: 'models'; readonly body: Omit<NewModelVersion, 'files'> })
  | (Named & { readonly kind: 'dataset'; readonly resource: 'datasets'; readonly body: Omit<NewDatasetVersion, 'files'> })

/** What is to be published, from `portllm.json` and the options together. Throws for what is missing or does not fit. */
export function publishPlan(kind: FolderKind, settings: PublishFile): PublishPlan {
  if (settings.name === undefined) throw usageError('The name is missing: give --name organization/name, or write it into portllm.json with `portllm init`.')
  const { organization, name, selector, weight } = parseReference(settings.name)
  if (weight !== 1) throw usageError(`--name ${settings.name} has a weight, which a name must not have.`)
  const text = settings.version ?? selector
  if (text === null) throw usageError(`The version of ${settings.name} is missing: give --version ${kind === 'patch' ? '1.0.0' : '1.0'}, say.`)
  if (selector !== null && settings.version !== undefined && selector !== settings.version) throw usageError(`--name says version ${selector}, --version says ${settings.version}.`)
  if (kind === 'patch') checkPatchVersion(text)
  else checkModelVersion(text)
  const version = { organization, name, version: text }
  const named = { version, reference: formatReference({ organization, name, selector: text }) }
  switch (kind) {
    case 'patch': return { ...named, kind, resource: 'patches', body: patchBody(settings) }
    case 'model': return { ...named, kind, resource: 'models', body: modelBody(settings) }
    case 'dataset': return { ...named, kind, resource: 'datasets', body: datasetBody(settings) }
  }
}

function patchBody({ base, targetRange, tag, parent, parentKind, description, visibility }: PublishFile): Omit<NewPatchVersion, 'files'> {
  if (parent !== undefined || parentKind !== undefined) throw usageError('--parent is for models; a patch has a base: --base organization/model@version.')
  if (base === undefined) throw usageError('The base is missing: give --base organization/model@version, the exact version that the patch was trained on.')
  requireVersion('--base', base)
  return { base, targetRange, tag, description, visibility }
}

function modelBody({ base, targetRange, tag, parent, parentKind, description, visibility }: PublishFile): Omit<NewModelVersion, 'files'> {
  if (base !== undefined || targetRange !== undefined || tag !== undefined) throw usageError('--base, --target-range and --tag are for patches; a model has a parent: --parent organization/model@version.')
  if (parent === undefined) {
    if (parentKind !== undefined) throw usageError('--parent-kind says how the model was made from its --parent, which is missing.')
    return { description, visibility }
  }
  requireVersion('--parent', parent)
  return { parent: { reference: parent, kind: parentKind ?? 'other' }, description, visibility }
}

function datasetBody({ base, targetRange, tag, parent, parentKind, description, visibility }: PublishFile): Omit<NewDatasetVersion, 'files'> {
  const foreign = { '--base': base, '--target-range': targetRange, '--tag': tag, '--parent': parent, '--parent-kind': parentKind }
  const given = Object.entries(foreign).find(([, value]) => value !== undefined)
  if (given !== undefined) throw usageError(`${given[0]} is for models or patches; a dataset has nothing like it.`)
  return { description, visibility }
}

function requireVersion(option: string, text: string): void {
  const { selector, weight } = parseReference(text)
  if (selector === null || weight !== 1) throw usageError(`${option} ${text} must name exactly one version: organization/model@version.`)
}
