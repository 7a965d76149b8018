// The chat: what is shown, and what waits to be said. The connection itself is longwire.js.
import { connect } from './longwire.js'

const $ = (id) => document.getElementById(id)
const query = new URLSearchParams(location.search)
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('')
const messages = new Map() // by id, accepted
const unsaid = new Map() // by id, until they come back
let line, user, rooms, room, isOpen = false, isSaying = false, isLoaded = false, questions = 0

async function ask(path, body) {
  const request = body && { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  const answer = await fetch(`/chat/${path}`, request)
  if (answer.status >= 500) throw new Error(`the backend answered ${answer.status}`)
  return answer.json()
}

/**
 * A name for this tab: whoever reloads it, or lost the line for a moment, returns as the same client. A tab that was
 * duplicated has a copy of the name, but not the lock.
 */
async function nameOfTab() {
  for (;;) {
    const name = (sessionStorage.client ??= random())
    const take = (resolve) => navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      resolve(lock !== null)
      return lock && new Promise(() => {}) // until the tab is gone
    })
    if (!navigator.locks || (await new Promise(take))) return name
    delete sessionStorage.client
  }
}

async function start(me) {
  if (me.wrong) return show('login')
  ;({ user, rooms } = me)
  room = rooms[0]
  show('chat')
  $('me').textContent = user
  const kinds = query.has('transport') ? [query.get('transport')] : undefined
  line = connect({ url: me.longwire || location.origin, query: { client: await nameOfTab() }, kinds, heard, changed })
}

function heard(message) {
  if (message.session && !(isLoaded && message.recovered)) loadHistory()
  else if (message.type === 'join' || message.type === 'leave') loadOnline()
  else if (message.data?.wrong) refused(message.data)
  else if (message.data?.id) accepted([message.data])
}

function changed(state, kind) {
  isOpen = state === 'open'
  $('line').dataset.state = state
  $('line').textContent = isOpen ? kind : state
  // For good: nobody is logged in any more, or this page is open elsewhere.
  if (state === 'closed') ask('rooms').then((me) => (me.wrong ? show('login') : ($('line').textContent = 'closed: reload to go on here')))
  if (!isOpen) return
  loadOnline()
  // Whether what was said last arrived is not known. Said twice it is accepted once.
  for (const message of unsaid.values()) message.isSaid = false
  sayAll()
}

/** In order and one at a time, over the socket, or by requests; nothing while there is no line, or it would overtake. */
async function sayAll() {
  if (isSaying) return
  isSaying = true
  while (isOpen) {
    const message = [...unsaid.values()].find(({ isSaid }) => !isSaid)
    if (!message) break
    const { id, room, text } = message
    message.isSaid = line.say(JSON.stringify({ id, room, text }))
    if (message.isSaid) continue
    const answer = await ask('send', { id, room, text }).catch(() => null)
    if (!answer) break
    message.isSaid = true
    if (answer.wrong) refused({ id, ...answer })
  }
  isSaying = false
}

function accepted(list) {
  for (const message of list) {
    messages.set(message.id, message)
    unsaid.delete(message.id)
  }
  draw()
}

function refused({ id, wrong }) {
  unsaid.delete(id)
  $('text').placeholder = wrong
  draw()
}

async function loadHistory() {
  isLoaded = true
  try {
    accepted((await ask('history')).messages)
  } catch {
    setTimeout(loadHistory, 2000)
  }
}

async function loadOnline() {
  const question = (questions += 1)
  const { online, left } = await ask(`online?room=${room}`).catch(() => ({}))
  if (!online || question !== questions) return // the backend is gone; or a later one is under way, or answered
  const gone = Object.entries(left).map(([name, { at, category }]) => item('left', name, `left ${clock(at)}, ${category}`))
  $('people').replaceChildren(...online.sort().map((name) => item('online', name)), ...gone)
}

const clock = (at) => new Date(at * 1000).toTimeString().slice(0, 5)

function item(kind, name, note = '') {
  const element = document.createElement('li')
  element.className = kind
  element.append(Object.assign(document.createElement('b'), { textContent: name }), Object.assign(document.createElement('span'), { textContent: note }))
  return element
}

function draw() {
  const all = [...messages.values()].sort((one, other) => one.n - other.n)
  const waiting = [...unsaid.values()].map((message) => ({ ...message, user, isWaiting: true }))
  const here = [...all, ...waiting].filter((message) => message.room === room)
  $('messages').replaceChildren(...here.map(({ id, user: name, text, at, isWaiting }) => {
    const element = item(isWaiting ? 'waiting' : name === user ? 'mine' : '', name, text)
    element.dataset.id = id
    element.append(Object.assign(document.createElement('time'), { textContent: isWaiting ? 'waiting' : clock(at) }))
    return element
  }))
  $('messages').scrollTop = $('messages').scrollHeight
  $('rooms').replaceChildren(...rooms.map((name) => {
    const element = item(name === room ? 'current' : '', `# ${name}`, String(all.filter((message) => message.room === name).length))
    element.onclick = () => ((room = name), draw(), loadOnline())
    return element
  }))
}

const show = (id) => ['login', 'chat'].forEach((one) => ($(one).hidden = one !== id))

$('login').onsubmit = (event) => {
  event.preventDefault()
  ask('login', { name: $('name').value }).then((me) => (me.wrong ? ($('wrong').textContent = me.wrong) : start(me)))
}
$('say').onsubmit = (event) => {
  event.preventDefault()
  const text = $('text').value.trim()
  if (text === '') return
  const id = random()
  unsaid.set(id, { id, room, text })
  $('text').value = ''
  draw()
  sayAll()
}
setInterval(() => unsaid.size && line && sayAll(), 2000)
setInterval(() => line && loadOnline(), 10_000) // who comes between two long-polls is not told of
ask('rooms').then(start)
