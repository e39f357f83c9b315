/**
 * `node tests/infra/terraform/extract-schema.ts`: writes aws-provider-schema.json, the schema of every AWS resource that
 * infra/terraform and its try on an emulator use. HashiCorp's registry is not within reach of every machine that runs the tests; the npm package
 * @cdktn/provider-aws is generated from the provider's own schema, and this reads it back from there.
 */
import { spawnSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import ts from 'typescript'
import { EMULATOR, MODULE, SCHEMA, type Attribute, type Block, type NestedBlock, type ProviderSchema } from './schema.ts'

const BINDINGS = '@cdktn/provider-aws@25.7.0'

/** The bindings have no ephemeral resources: from the provider's internal/service/secretsmanager/*_ephemeral.go. */
const EPHEMERAL: ProviderSchema['ephemeral'] = {
  aws_secretsmanager_random_password: {
    attributes: {
      ...Object.fromEntries(['exclude_characters', 'exclude_lowercase', 'exclude_numbers', 'exclude_punctuation', 'exclude_uppercase', 'include_space', 'require_each_included_type'].map((name) => [name, { type: 'bool', use: 'optional' } as const])),
      password_length: { type: 'number', use: 'optional' },
      random_password: { type: 'string', use: 'computed' },
    },
    blocks: {},
  },
  aws_secretsmanager_secret_version: {
    attributes: {
      secret_id: { type: 'string', use: 'required' },
      ...Object.fromEntries(['version_id', 'version_stage'].map((name) => [name, { type: 'string', use: 'optional' } as const])),
      ...Object.fromEntries(['arn', 'created_date', 'secret_binary', 'secret_string'].map((name) => [name, { type: 'string', use: 'computed' } as const])),
      version_stages: { type: ['list', 'string'], use: 'computed' },
    },
    blocks: {},
  },
}

/** Names of the kind that the files declare, such as aws_s3_bucket of `resource`. */
async function usedTypes(kind: 'resource' | 'data'): Promise<string[]> {
  const names = (await Promise.all([MODULE, EMULATOR].map(async (folder) => (await readdir(folder, { recursive: true })).map((name) => join(folder, name))))).flat()
  const texts = await Promise.all(names.filter((name) => name.endsWith('.tf')).map((name) => readFile(name, 'utf8')))
  return [...new Set(texts.flatMap((text) => [...text.matchAll(new RegExp(`^${kind} "(aws_\\w+)"`, 'gm'))].map(([, type]) => type!)))].sort()
}

/** The interfaces of a file of declarations, by name. */
function interfacesOf(declarations: string): Map<string, ts.InterfaceDeclaration> {
  const file = ts.createSourceFile('index.d.ts', declarations, ts.ScriptTarget.Latest, true)
  return new Map(file.statements.filter(ts.isInterfaceDeclaration).map((node) => [node.name.text, node]))
}

function attributeType(text: string, isSet: boolean): Attribute['type'] {
  if (/^\{\s*\[key: string\]: (string|number)/.test(text)) return ['map', /: number/.test(text) ? 'number' : 'string']
  if (/^string\[\]/.test(text)) return [isSet ? 'set' : 'list', 'string']
  if (/^number\[\]/.test(text)) return [isSet ? 'set' : 'list', 'number']
  if (/^boolean/.test(text)) return 'bool'
  if (text === 'string' || text === 'number') return text
  return 'dynamic'
}

/** What may be written in a block: each property's documentation ends with `#name_in_terraform`, and begins with `name block` where it is one. */
function blockOf(name: string, interfaces: Map<string, ts.InterfaceDeclaration>, code: string): Block {
  const block: Block = { attributes: {}, blocks: {} }
  for (const member of interfaces.get(name)!.members.filter(ts.isPropertySignature)) {
    const documentation = ts.getJSDocCommentsAndTags(member).map((node) => node.getText()).join('\n')
    const snake = /\/docs(?:\/[\w-]+\/\w+)?#(\w+) /.exec(documentation)?.[1]
    if (snake === undefined) continue
    const type = member.type!.getText().replace(/ \| cdktn\.IResolvable$/, '')
    const use = member.questionToken === undefined ? 'required' : 'optional'
    if (new RegExp(`^\\s*\\* ${snake} block$`, 'm').test(documentation)) {
      const isSet = new RegExp(`\\b${snake}: \\{\\s+value: [^\\n]+\\s+isBlock: true,\\s+type: "set"`).test(code)
      const many = type.endsWith('[]')
      const nested: NestedBlock = { nesting: isSet ? 'SET' : 'LIST', min: use === 'required' ? 1 : 0, max: many ? 0 : 1, block: blockOf(type.replace('[]', ''), interfaces, code) }
      // `timeouts` alone is an object.
      block.blocks[snake] = snake === 'timeouts' ? { ...nested, nesting: 'SINGLE', max: 0 } : nested
    } else {
      const isSet = code.includes(`cdktn.Fn.tolist(this.get${type.startsWith('number') ? 'Number' : ''}ListAttribute('${snake}'))`)
      block.attributes[snake] = { type: attributeType(type, isSet), use, ...(snake.endsWith('_wo') && { writeOnly: true }) }
    }
  }
  return block
}

const COMPUTED_TYPES: Record<string, Attribute['type']> = { getStringAttribute: 'string', getNumberAttribute: 'number', getBooleanAttribute: 'bool', getStringMapAttribute: ['map', 'string'], getListAttribute: ['list', 'string'] }

/** With what can only be read: the getters of the resource's own class. */
function resourceOf(declarations: string, code: string): Block {
  const interfaces = interfacesOf(declarations)
  const className = /^export declare class (\w+) extends cdktn\.Terraform(?:Resource|DataSource|Provider)\b/m.exec(declarations)![1]!
  const block = blockOf(`${className}Config`, interfaces, code)
  const body = code.slice(code.indexOf(`class ${className} extends`))
  for (const [, method, snake] of body.matchAll(/return (?:cdktn\.Fn\.tolist\()?this\.(get\w+Attribute)\('(\w+)'\)/g)) {
    block.attributes[snake!] ??= { type: COMPUTED_TYPES[method!] ?? 'dynamic', use: 'computed' }
  }
  for (const [, snake] of body.matchAll(/_\w+ = new \w+List\(this, "(\w+)"/g)) if (!(snake! in block.blocks)) block.attributes[snake!] ??= { type: 'dynamic', use: 'computed' }
  return block
}

function run(command: string, args: string[], cwd: string): string {
  const done = spawnSync(command, args, { cwd, encoding: 'utf8', maxBuffer: 1 << 26 })
  if (done.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.stderr}`)
  return done.stdout
}

const folder = await mkdtemp(join(tmpdir(), 'portllm-bindings-'))
try {
  run('tar', ['xzf', run('npm', ['pack', BINDINGS, '--silent'], folder).trim()], folder)
  const readRoom = async (name: string) => {
    const room = join(folder, 'package/lib', name)
    return resourceOf(await readFile(join(room, 'index.d.ts'), 'utf8'), await readFile(join(room, 'index.js'), 'utf8'))
  }
  const read = (prefix: string, type: string) => readRoom(`${prefix}${type.slice('aws_'.length).replaceAll('_', '-')}`)
  const all = async (kind: 'resource' | 'data', prefix: string) => Object.fromEntries(await Promise.all((await usedTypes(kind)).map(async (type) => [type, await read(prefix, type)] as const)))
  const version = /aws\/(\d+\.\d+\.\d+)\/docs/.exec(await readFile(join(folder, 'package/lib/s3-bucket/index.d.ts'), 'utf8'))![1]!
  const schema: ProviderSchema = { bindings: BINDINGS, version, provider: await readRoom('provider'), resources: await all('resource', ''), dataSources: await all('data', 'data-aws-'), ephemeral: EPHEMERAL }
  await writeFile(SCHEMA, `${JSON.stringify(schema)}\n`)
  console.log(`hashicorp/aws ${version}: ${Object.keys(schema.resources).length} resources and ${Object.keys(schema.dataSources).length} data sources`)
} finally {
  await rm(folder, { recursive: true, force: true })
}
