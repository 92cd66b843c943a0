// A page of the application: what the tenant who is signed in has used this month.
import { headers } from 'next/headers'

import { usageOf } from '../lib/ai-gateway.js'
import { sessionOf } from '../lib/session.js'

export default async function Page() {
  const who = await sessionOf({ headers: await headers() })
  if (!who) return <p>Sign in first.</p>
  const { services } = await usageOf(who)
  return <ul>{Object.entries(services).map(([name, sums]) => <li key={name}>{`${name}: ${sums.count}`}</li>)}</ul>
}
