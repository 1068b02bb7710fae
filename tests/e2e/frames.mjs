// WebSocket frames by hand (RFC 6455 section 5), so that tests can send what no library would, and a table of
// conversations on the lines of the Autobahn suite's core cases.
import { constants, deflateRawSync } from 'node:zlib';

export const TEXT = 1;
export const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

// One frame of a client. `length` is the coding of the length: 7, 16 or 64 bits, the shortest unless told.
export function frame(opcode, payload = '', { fin = true, rsv = 0, masked = true, length, claims } = {}) {
  const bytes = Buffer.from(payload);
  const size = claims ?? bytes.length;
  const coding = length ?? (size < 126 ? 7 : size < 65536 ? 16 : 64);
  const head = Buffer.alloc({ 7: 2, 16: 4, 64: 10 }[coding]);
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  head[1] = (masked ? 0x80 : 0) | { 7: size, 16: 126, 64: 127 }[coding];
  if (coding === 16) head.writeUInt16BE(size, 2);
  if (coding === 64) head.writeBigUInt64BE(BigInt(size), 2);
  if (!masked) return Buffer.concat([head, bytes]);
  const key = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] ^= key[at % 4];
  return Buffer.concat([head, key, bytes]);
}

const text = (payload, options) => frame(TEXT, payload, options);
const binary = (payload, options) => frame(BINARY, payload, options);
const rest = (payload, options) => frame(0, payload, options);
const close = (code, reason = '') => {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return frame(CLOSE, payload);
};
const BYE = close(1000);

// The frames of a server, as far as they are whole: [opcode, payload, fin, rsv].
export function parse(bytes) {
  const frames = [];
  for (let at = 0; at + 2 <= bytes.length;) {
    const short = bytes[at + 1] & 0x7f;
    const head = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (at + head > bytes.length) break;
    const size = short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2));
    if (at + head + size > bytes.length) break;
    frames.push({ opcode: bytes[at] & 15, fin: bytes[at] >> 7 === 1, rsv: (bytes[at] >> 4) & 7, payload: bytes.subarray(at + head, at + head + size) });
    at += head + size;
  }
  return frames;
}

// What a conversation came to, in a word for each frame: `text 5`, `pong 0`, `close 1002`.
export function verdict(bytes) {
  return parse(bytes).map(({ opcode, payload }) => {
    if (opcode === CLOSE) return `close ${payload.length >= 2 ? payload.readUInt16BE() : 'empty'}`;
    return `${{ 1: 'text', 2: 'binary', 9: 'ping', 10: 'pong' }[opcode] ?? opcode} ${payload.length}`;
  });
}

const pattern = (size) => Buffer.from(Array.from({ length: size }, (_, at) => (at * 31) & 0xff));
const letters = (size) => 'abcdefghij'.repeat(size / 10 + 1).slice(0, size);
const cut = (bytes, size) => Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) => bytes.subarray(at * size, (at + 1) * size));
const deflated = (payload) => deflateRawSync(payload, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4);

// Cases: what is sent, write by write, and the verdict. `offer` is Sec-WebSocket-Extensions, `protocols`
// Sec-WebSocket-Protocol. A case ends with a close frame of either side.
function* table() {
  for (const size of [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20]) {
    yield [`text of ${size}`, [text(letters(size)), BYE], [`text ${size}`, 'close 1000']];
    yield [`binary of ${size}`, [binary(pattern(size)), BYE], [`binary ${size}`, 'close 1000']];
  }
  yield ['binary of 65536 in writes of 997', [...cut(binary(pattern(65536)), 997), BYE], ['binary 65536', 'close 1000']];
  yield ['text byte by byte', [...cut(text('hello'), 1), BYE], ['text 5', 'close 1000']];
  yield ['a message and the close in one write', [Buffer.concat([text('hello'), BYE])], ['text 5', 'close 1000']];
  yield ['length in 16 bits for no need', [text('hello', { length: 16 }), BYE]];
  yield ['length in 64 bits for no need', [text('hello', { length: 64 }), BYE]];
  yield ['more than the application takes', [frame(BINARY, '', { claims: 3 << 20 })], ['close 1009']];
  yield ['a length beyond all', [frame(BINARY, '', { claims: Number.MAX_SAFE_INTEGER })], ['close 1009']];

  for (const payload of ['', 'hello', pattern(125)]) {
    yield [`ping of ${payload.length}`, [frame(PING, payload), BYE], [`pong ${payload.length}`, 'close 1000']];
  }
  yield ['ping of 126', [frame(PING, pattern(126))], ['close 1002']];
  yield ['ping byte by byte', [...cut(frame(PING, 'hello'), 1), BYE], ['pong 5', 'close 1000']];
  yield ['ten pings', [...Array.from({ length: 10 }, (_, at) => frame(PING, `${at}`)), BYE], [...Array(10).fill('pong 1'), 'close 1000']];
  yield ['a pong nobody asked for', [frame(PONG, 'hello'), BYE], ['close 1000']];
  yield ['fragmented ping', [frame(PING, 'x', { fin: false })], ['close 1002']];

  for (let rsv = 1; rsv < 8; rsv += 1) yield [`reserved bits ${rsv}`, [text('hello', { rsv })], ['close 1002']];
  for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) {
    yield [`opcode ${opcode}`, [frame(opcode, 'hello')], ['close 1002']];
    yield [`opcode ${opcode} after a message`, [text('hello'), frame(opcode)], ['text 5', 'close 1002']];
  }

  yield ['two fragments', [text('he', { fin: false }), rest('llo'), BYE], ['text 5', 'close 1000']];
  yield ['two fragments and a ping', [text('he', { fin: false }), frame(PING, 'p'), rest('llo'), BYE], ['pong 1', 'text 5', 'close 1000']];
  yield ['empty fragments', [text('', { fin: false }), rest('', { fin: false }), rest(''), BYE], ['text 0', 'close 1000']];
  yield ['a thousand fragments in one write', [Buffer.concat([binary(pattern(64), { fin: false }), ...Array(998).fill(rest(pattern(64), { fin: false })), rest(pattern(64)), BYE])], ['binary 64000', 'close 1000']];
  yield ['sixteen fragments of 64 KiB', [binary(pattern(65536), { fin: false }), ...Array.from({ length: 14 }, () => rest(pattern(65536), { fin: false })), rest(pattern(65536)), BYE], ['binary 1048576', 'close 1000']];
  yield ['a continuation of nothing', [rest('hello')], ['close 1002']];
  yield ['an open continuation of nothing', [rest('hello', { fin: false })], ['close 1002']];
  yield ['a message within fragments', [text('he', { fin: false }), text('llo')], ['close 1002']];

  for (const good of ['Hello-µ@ßöäüàá-UTF-8!!', 'κόσμε', '\u{10ffff}', '\ud7ff\ue000\ufffd\uffff', '\u0000']) {
    yield [`UTF-8 ${JSON.stringify(good)}`, [text(good), BYE], [`text ${Buffer.byteLength(good)}`, 'close 1000']];
    const halves = cut(Buffer.from(good), 3);
    const parts = halves.map((half, at) => frame(at === 0 ? TEXT : 0, half, { fin: at === halves.length - 1 }));
    yield [`UTF-8 ${JSON.stringify(good)} cut within characters`, [...parts, BYE], [`text ${Buffer.byteLength(good)}`, 'close 1000']];
  }
  for (const bad of ['80', 'ff', 'c080', 'c3', 'e0809f', 'eda080', 'edbfbf', 'f08080af', 'f4908080', 'f8888080', 'cebae1bdb9cf83cebcceb5eda080656469746564']) {
    yield [`not UTF-8: ${bad}`, [text(Buffer.from(bad, 'hex'))], ['close 1007']];
    yield [`not UTF-8, seen early or late: ${bad}`, [text(Buffer.from(bad, 'hex'), { fin: false }), rest('more')]];
    yield [`not UTF-8 but binary: ${bad}`, [binary(Buffer.from(bad, 'hex')), BYE], [`binary ${bad.length / 2}`, 'close 1000']];
  }

  for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]) {
    yield [`close ${code}`, [close(code)], [`close ${code}`]];
  }
  for (const code of [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]) yield [`close ${code}`, [close(code)], ['close 1002']];
  yield ['close without a code', [frame(CLOSE)], ['close empty']];
  yield ['close with half a code', [frame(CLOSE, 'x')], ['close 1002']];
  yield ['close with a reason', [close(1000, letters(123))], ['close 1000']];
  yield ['close with too long a reason', [close(1000, letters(124))], ['close 1002']];
  yield ['close with a reason that is not UTF-8', [frame(CLOSE, Buffer.from('03e8ff', 'hex'))], ['close 1007']];
  yield ['close within fragments', [text('he', { fin: false }), BYE], ['close 1000']];
  yield ['data after the close', [Buffer.concat([BYE, text('hello'), frame(PING)])], ['close 1000']];
  yield ['close twice', [Buffer.concat([BYE, close(4000)])], ['close 1000']];

  yield ['not masked', [text('hello', { masked: false })], ['close 1002']];
  yield ['a close that is not masked', [frame(CLOSE, '', { masked: false })], ['close 1002']];
  const small = Array.from({ length: 2000 }, (_, at) => text(letters(at % 17)));
  yield ['2000 small messages in one write', [Buffer.concat([...small, BYE])], [...small.map((_, at) => `text ${at % 17}`), 'close 1000']];
  yield ['200 small messages, a write each', [...small.slice(0, 200), BYE], [...small.slice(0, 200).map((_, at) => `text ${at % 17}`), 'close 1000']];

  const deflate = 'permessage-deflate';
  for (const offer of [
    deflate, `${deflate}; client_max_window_bits`, `${deflate}; server_no_context_takeover; client_no_context_takeover`,
    `${deflate}; server_max_window_bits=10`, `${deflate}; client_max_window_bits=9, ${deflate}`, 'x-unknown', `x-unknown, ${deflate}`,
    `${deflate}; nonsense`,
  ]) {
    yield [`offer ${offer}`, [text('hello'), BYE], undefined, { offer }];
  }
  const message = text(deflated(letters(70000)), { rsv: 4 });
  yield ['compressed', [message, BYE], undefined, { offer: deflate }];
  yield ['compressed and not, turn by turn', [message, text('plain'), message, BYE], undefined, { offer: deflate }];
  yield ['compressed in fragments', [text(deflated('hello').subarray(0, 3), { rsv: 4, fin: false }), rest(deflated('hello').subarray(3)), BYE], undefined, { offer: deflate }];
  yield ['compressed without the offer', [message], ['close 1002']];
  yield ['a compressed continuation', [text('he', { fin: false }), rest('llo', { rsv: 4 })], ['close 1002'], { offer: deflate }];
  yield ['a compressed ping', [frame(PING, '', { rsv: 4 })], ['close 1002'], { offer: deflate }];
  yield ['not compressed as it says', [text(Buffer.from('ffffffff', 'hex'), { rsv: 4 })], ['close 1007'], { offer: deflate }];

  for (const protocols of ['chat', 'superchat, chat', 'other']) yield [`subprotocols ${protocols}`, [text('hello'), BYE], ['text 5', 'close 1000'], { protocols }];
}

export const CASES = [...table()].map(([name, writes, wanted, { offer, protocols } = {}]) => ({ name, writes, wanted, offer, protocols }));
