import { ApiError } from '../../errors.ts'
import type { Principal, Role, Scope } from './principal.ts'

type User = Extract<Principal, { kind: 'user' }>
interface Owner { readonly id: string; readonly name: string }

/** Only registry administrators make organizations. */
export function assertMayCreateOrganization(principal: Principal): asserts principal is User {
  const user = assertScope(principal, 'admin', 'create an organization')
  if (!user.isAdmin) throw forbidden('Only an administrator of the registry may create an organization. Ask one.')
}

/** Publishing, and what belongs to it: drafts, uploads, dist-tags, yank, deprecate. */
export function assertMayPublish(principal: Principal, organization: Owner): asserts principal is User {
  const user = assertScope(principal, 'publish', `publish to ${organization.name}`)
  if (roleIn(user, organization.id) === null || roleIn(user, organization.id) === 'reader') {
    throw forbidden(`You may not publish to ${organization.name}: it needs the role publisher or admin there, and a token that is not limited to another organization.`)
  }
}

/** Changing what everybody sees of a package: description and visibility. */
export function assertMayAdminister(principal: Principal, organization: Owner): asserts principal is User {
  const user = assertScope(principal, 'admin', `administer ${organization.name}`)
  if (roleIn(user, organization.id) !== 'admin') throw forbidden(`Only an admin of ${organization.name} may do this. Ask one.`)
}

/** Making tokens: for oneself, never with more than the token that asks has. */
export function assertMayCreateToken(principal: Principal, wanted: { scopes: readonly Scope[]; organizationId: string | null }): asserts principal is User {
  const user = assertUser(principal, 'create a token')
  // The administrator's own token runs no jobs, but somebody must be able to make the tokens of runners.
  const mayMakeRunners = user.isAdmin && user.scopes.includes('admin')
  const beyond = wanted.scopes.filter((scope) => !user.scopes.includes(scope) && !(scope === 'runner' && mayMakeRunners))
  if (beyond.length > 0) throw forbidden(`A token cannot give more than the one that makes it: yours lacks the scope ${beyond.join(', ')}.`)
  if (user.organizationId !== null && wanted.organizationId !== user.organizationId) {
    throw forbidden('Your token is limited to one organization, so a token made with it must be limited to the same one.')
  }
  if (wanted.organizationId !== null && roleIn(user, wanted.organizationId) === null) throw forbidden('You are not a member of that organization.')
}

/** Listing and revoking one's own tokens. */
export function assertMayManageTokens(principal: Principal): asserts principal is User {
  assertUser(principal, 'manage tokens')
}

/** Starting work that costs something, such as a merge of what one may read. */
export function assertMayStartMerge(principal: Principal): asserts principal is User {
  assertMayStart(principal, 'a merge')
}

/** The same for an analysis of what one may read: a reader decides by it whether to merge, so it takes no more than merging. */
export function assertMayStartAnalysis(principal: Principal): asserts principal is User {
  assertMayStart(principal, 'an analysis')
}

/** Like an analysis: whoever decides about a merge may ask how well it works. */
export function assertMayStartEvaluation(principal: Principal): asserts principal is User {
  assertMayStart(principal, 'an evaluation')
}

function assertMayStart(principal: Principal, what: string): asserts principal is User {
  const user = assertUser(principal, `start ${what}`)
  if (!hasReadScope(user)) throw forbidden(`Starting ${what} needs a token with the scope read.`)
}

/** Claiming jobs: runners only. */
export function assertMayRunJobs(principal: Principal): asserts principal is User {
  const user = assertScope(principal, 'runner', 'claim jobs')
  if (user.organizationId !== null) throw forbidden('A runner needs a token that is not limited to one organization.')
}

/** Whether internal packages and drafts of the organization are visible. */
export function mayReadInternal(principal: Principal, organizationId: string): boolean {
  return principal.kind === 'user' && hasReadScope(principal) && roleIn(principal, organizationId) !== null
}

export function roleIn(user: User, organizationId: string): Role | null {
  return user.isAdmin ? 'admin' : (user.roles.get(organizationId) ?? null)
}

export function hasReadScope(user: User): boolean {
  return user.scopes.some((scope) => scope !== 'runner')
}

function assertUser(principal: Principal, what: string): User {
  if (principal.kind === 'anonymous') {
    throw new ApiError('unauthenticated', `To ${what}, send a token as "Authorization: Bearer plm_…", or run "portllm login".`)
  }
  return principal
}

function assertScope(principal: Principal, scope: Scope, what: string): User {
  const user = assertUser(principal, what)
  if (!user.scopes.includes(scope)) throw forbidden(`To ${what}, the token needs the scope ${scope}; this one has ${user.scopes.join(', ') || 'none'}.`)
  return user
}

function forbidden(message: string): ApiError {
  return new ApiError('forbidden', message)
}
