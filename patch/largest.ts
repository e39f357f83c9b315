/** The largest of the values, and of `least`. Math.max takes its arguments on the stack, which holds some 100,000. */
export function largest(values: Iterable<number>, least = 0): number {
  let found = least
  for (const value of values) if (value > found) found = value
  return found
}
