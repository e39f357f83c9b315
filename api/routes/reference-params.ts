import { z } from '@hono/zod-openapi'

const org = z.string().openapi({ example: 'mercy-hospital' })
const name = z.string().openapi({ example: 'clinical-notes' })

export const FamilyParams = z.object({ org, name })
export const ModelVersionParams = z.object({ org, name, version: z.string().openapi({ example: 'v1' }) })
export const PatchVersionParams = z.object({ org, name, version: z.string().openapi({ example: '1.0.0' }) })

/** The names of a path as the services take them. */
export function toNames<T extends { org: string; name: string }>({ org, ...rest }: T): Omit<T, 'org'> & { organization: string } {
  return { organization: org, ...rest }
}
