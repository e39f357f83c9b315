export const SCOPES = ['read', 'publish', 'admin', 'runner'] as const
export type Scope = (typeof SCOPES)[number]
export type Role = 'reader' | 'publisher' | 'admin'

/** Who asks. Anonymous readers see what is public. */
export type Principal =
  | { readonly kind: 'anonymous' }
  | {
      readonly kind: 'user'
      readonly userId: string
      readonly userName: string
      readonly tokenId: string
      readonly scopes: readonly Scope[]
      /** Registry administrator. False for a token that is limited to one organization. */
      readonly isAdmin: boolean
      /** The one organization that the token is limited to, or null. */
      readonly organizationId: string | null
      /** Organization ids and the role in each, already narrowed to what the token allows. */
      readonly roles: ReadonlyMap<string, Role>
    }
