type Security = Record<string, string[]>[]

/** An operation that nobody may use without a token; add the middleware `authenticated` to it. */
export const tokenRequired: Security = [{ token: [] }]
/** An operation that anonymous readers may use too: they see what is public. */
export const tokenOptional: Security = [{}, { token: [] }]
