// Who asks. This reads a token that the application signed itself, from a cookie or a header; where you have Auth.js or
// the like, let it tell tenant and user instead.
import { jwtVerify } from 'jose'

import { secret } from './secret.js'

/** Returns { tenantId, userId }, or null for somebody who is not signed in. */
export async function sessionOf(request) {
  const cookie = request.headers.get('cookie')?.match(/(?:^|;\s*)session=([^;]+)/)?.[1]
  const token = cookie ?? request.headers.get('authorization')?.replace(/^Bearer /i, '')
  if (!token) return null
  try {
    const { payload } = await jwtVerify(token, secret(), { algorithms: ['HS256'], requiredClaims: ['tenantId', 'exp'] })
    return { tenantId: payload.tenantId, userId: payload.sub }
  } catch {
    return null
  }
}
