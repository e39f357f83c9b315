import { join } from 'node:path'
import { ROOT } from '../../setup/registry.ts'

export const MODULE = join(ROOT, 'infra/terraform')
/** A root that has the module made on an emulator of AWS. */
export const EMULATOR = join(ROOT, 'tests/infra/emulator')
export const SCHEMA = join(import.meta.dirname, 'aws-provider-schema.json')

/** In Terraform's own words for types: `"string"`, `["list", "string"]`. */
export interface Attribute {
  type: string | readonly [string, string]
  use: 'required' | 'optional' | 'computed'
  writeOnly?: true
}
export interface NestedBlock { nesting: 'LIST' | 'SET' | 'SINGLE'; min: number; max: number; block: Block }
export interface Block { attributes: Record<string, Attribute>; blocks: Record<string, NestedBlock> }

export interface ProviderSchema {
  /** The npm package that it was read from. */
  bindings: string
  /** Version of hashicorp/aws. */
  version: string
  provider: Block
  resources: Record<string, Block>
  dataSources: Record<string, Block>
  ephemeral: Record<string, Block>
}
