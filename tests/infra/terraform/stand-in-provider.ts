import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { loadPackageDefinition, Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall, type ServiceClientConstructor } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'
import { decode, encode, ExtData } from '@msgpack/msgpack'
import { SCHEMA, type Attribute, type Block, type ProviderSchema } from './schema.ts'

export interface StandInProvider {
  /** For Terraform's environment: where it finds the provider, instead of in a registry. */
  readonly environment: { TF_REATTACH_PROVIDERS: string }
  stop(): void
}

/** What nobody knows before it is made, in Terraform's encoding. */
const UNKNOWN = new ExtData(0, new Uint8Array([0]))

/**
 * hashicorp/aws as far as `terraform validate` and a plan of a new deployment need it: the real schema and nothing else.
 * What the provider's own code would refuse (a value that AWS does not have, arguments that exclude each other) it lets
 * pass, and what AWS would know is unknown, or made up where it comes from a data source.
 */
export async function startStandInProvider(): Promise<StandInProvider> {
  const schema = JSON.parse(await readFile(SCHEMA, 'utf8')) as ProviderSchema
  const definition = loadSync(join(import.meta.dirname, 'provider.proto'), { keepCase: true })
  const { tfplugin5 } = loadPackageDefinition(definition) as unknown as { tfplugin5: { Provider: ServiceClientConstructor } }
  const server = new Server()
  const answer = (value: (request: any) => object) => (call: ServerUnaryCall<any, object>, done: sendUnaryData<object>) => done(null, value(call.request))
  const nothing = answer(() => ({}))
  server.addService(tfplugin5.Provider.service, {
    GetSchema: answer(() => ({
      provider: schemaOf(schema.provider),
      resource_schemas: mapValues(schema.resources, schemaOf),
      data_source_schemas: mapValues(schema.dataSources, schemaOf),
      ephemeral_resource_schemas: mapValues(schema.ephemeral, schemaOf),
    })),
    PrepareProviderConfig: answer(({ config }) => ({ prepared_config: config })),
    ValidateResourceTypeConfig: nothing,
    ValidateDataSourceConfig: nothing,
    ValidateEphemeralResourceConfig: nothing,
    Configure: nothing,
    PlanResourceChange: answer(({ type_name, proposed_new_state }) => ({ planned_state: fill(proposed_new_state, schema.resources[type_name]!, () => UNKNOWN) })),
    ReadDataSource: answer(({ type_name, config }) => ({ state: fill(config, schema.dataSources[type_name]!, (name) => `made-up-${name}`) })),
    OpenEphemeralResource: answer(({ type_name, config }) => ({ result: fill(config, schema.ephemeral[type_name]!, (name) => `made-up-${name}`) })),
    CloseEphemeralResource: nothing,
    Stop: nothing,
  })
  const port = await new Promise<number>((resolve, reject) => server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))))
  const reattach = { Protocol: 'grpc', ProtocolVersion: 5, Pid: process.pid, Test: true, Addr: { Network: 'tcp', String: `127.0.0.1:${port}` } }
  return { environment: { TF_REATTACH_PROVIDERS: JSON.stringify({ 'registry.terraform.io/hashicorp/aws': reattach }) }, stop: () => server.forceShutdown() }
}

/** A value with something in the place of every attribute that nobody gave and the provider may set. */
function fill({ msgpack }: { msgpack: Uint8Array }, { attributes }: Block, value: (name: string) => unknown): { msgpack: Uint8Array } {
  const object = decode(msgpack) as Record<string, unknown> | null
  if (object === null) return { msgpack }
  for (const [name, attribute] of Object.entries(attributes)) {
    const made = value(name)
    if (object[name] === null && attribute.writeOnly !== true && attribute.use !== 'required' && (made === UNKNOWN || attribute.type === 'string')) object[name] = made
    if (attribute.writeOnly === true) object[name] = null
  }
  return { msgpack: encode(object) }
}

function mapValues<T, U>(record: Record<string, T>, map: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value)]))
}

function schemaOf(block: Block): object {
  return { version: 0, block: messageOf(block) }
}

function messageOf({ attributes, blocks }: Block): object {
  return {
    attributes: Object.entries(attributes).map(([name, attribute]) => ({ name, ...useOf(attribute), type: Buffer.from(JSON.stringify(attribute.type)), write_only: attribute.writeOnly === true })),
    block_types: Object.entries(blocks).map(([type_name, { nesting, min, max, block }]) => ({ type_name, nesting, min_items: min, max_items: max, block: messageOf(block) })),
  }
}

/** The bindings do not tell which optional ones have a value of their own where none is given; a write-only one never has. */
function useOf({ use, writeOnly }: Attribute): object {
  return { required: use === 'required', optional: use === 'optional', computed: use === 'computed' || (use === 'optional' && writeOnly !== true) }
}
