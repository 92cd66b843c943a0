/** The key that the application and the gateway share. */
export function secret() {
  if (!process.env.JWT_SECRET) throw new Error('JWT_SECRET is not set: see .env.example')
  return new TextEncoder().encode(process.env.JWT_SECRET)
}
