/** Claims of the token of one attempt of one job: the only credential a runner's report carries. */
export interface AttemptClaims {
  readonly jobId: string
  readonly queueId: string
  readonly kind: string
  readonly retryCount: number
}

/** Signs and checks the registry's own short-lived tokens (EdDSA JWTs, jose). */
export interface Signer {
  signAttempt(claims: AttemptClaims, lifetimeSeconds: number): Promise<string>
  /** Null for anything but a valid, unexpired token of this registry. */
  verifyAttempt(token: string): Promise<AttemptClaims | null>
}
