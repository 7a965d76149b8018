// One connection to longwire. It comes back by itself: after a random and growing delay, by another way once one has
// failed twice, and from where it stood, so that nothing is missed and nothing comes twice.
//     const line = connect({ url, query: { client, channels: 'a,b' }, heard: (message) => {}, changed: (state, kind) => {} })
// `client` is a name that no other tab has. `heard` gets all that comes; `changed` is told 'open', 'waiting' or 'closed'.
// `line.say(text)` sends text up and gives true; over SSE and long-poll it gives false, and a request must do it.
import { carriers } from './carriers.js'

export function connect({ url, query, heard, changed, kinds = Object.keys(carriers) }) {
  const since = new Map() // by channel, the id of the last publication: where this page stands
  let [kind, failures, link, session] = [0, 0, null, null]
  const keep = (ids = '') => ids.split(',').forEach((id) => id && since.set(id.split('=')[0], id))
  const address = (path, more) => {
    const asked = { ...query, ...(session && { session }), ...(since.size && { since: [...since.values()].join() }), ...more }
    return `${url}/${path}?${new URLSearchParams(asked)}`
  }

  function open() {
    const me = (link = { isOpen: false, heardAt: Date.now() })

    function hear(message, id = message.id) {
      if (link !== me) return // it was given up
      me.heardAt = Date.now()
      keep(id)
      Object.values(message.channels ?? {}).forEach((channel) => keep(channel.id))
      if (message.type === 'disconnect') return me.lose(!message.reconnect)
      session = message.session ?? session // its name: who returns with the newest is who it was
      const isWelcome = !me.isOpen && (message.session || message.isStill)
      if (isWelcome) [me.isOpen, failures] = [true, 0]
      heard(message)
      if (isWelcome) changed('open', kinds[kind])
    }

    me.lose = (isForGood = false) => {
      if (link !== me) return
      link = null
      me.carrier.end()
      changed(isForGood ? 'closed' : 'waiting', kinds[kind])
      failures += 1
      if (failures > 1) kind = (kind + 1) % kinds.length
      if (!isForGood) setTimeout(open, Math.random() * Math.min(20_000, 250 * 2 ** failures))
    }

    me.carrier = carriers[kinds[kind]](address, hear, me.lose)
    setTimeout(() => me.isOpen || me.lose(), 10_000) // a proxy may hold back what has no end
  }

  // A peer that vanished does not say so. Who hears nothing, not even the answer to a ping, asks anew.
  setInterval(() => {
    if (link && Date.now() - link.heardAt > 30_000) link.lose()
    else if (link?.isOpen) link.carrier.ping()
  }, 10_000)
  open()
  return {
    say(text) {
      const canSay = Boolean(link?.isOpen && link.carrier.say)
      if (canSay) link.carrier.say(text)
      return canSay
    },
  }
}
