// What node does with the kernel: files, processes, threads, sockets, signals, watching, compression, WebAssembly.
'use strict';
const assert = require('assert');
const child = require('child_process');
const cluster = require('cluster');
const fs = require('fs');
const http = require('http');
const net = require('net');
const os = require('os');
const { once } = require('events');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

const tests = {
  'files, asynchronous': async () => {
    await fs.promises.mkdir('tree/below', { recursive: true });
    await fs.promises.writeFile('tree/below/file', 'x'.repeat(1 << 20));
    await fs.promises.copyFile('tree/below/file', 'tree/copy');
    await fs.promises.cp('tree', 'tree2', { recursive: true });
    assert.strictEqual((await fs.promises.stat('tree2/copy')).size, 1 << 20);
    await fs.promises.rm('tree2', { recursive: true });
  },
  'files, synchronous': async () => {
    fs.writeFileSync('a', 'one');
    fs.appendFileSync('a', 'two');
    fs.renameSync('a', 'b');
    fs.linkSync('b', 'c');
    fs.symlinkSync('b', 'd');
    assert.strictEqual(fs.readFileSync('d', 'utf8'), 'onetwo');
    assert.strictEqual(fs.statSync('c').nlink, 2);
    fs.chmodSync('b', 0o600);
    fs.utimesSync('b', 1, 2);
    assert.strictEqual(fs.statSync('b').mtimeMs, 2000);
  },
  'many files at one time': async () => {
    await Promise.all(Array.from({ length: 200 }, (_, i) => fs.promises.writeFile(`n${i}`, String(i))));
    const texts = await Promise.all(Array.from({ length: 200 }, (_, i) => fs.promises.readFile(`n${i}`, 'utf8')));
    assert.strictEqual(texts.reduce((sum, text) => sum + Number(text), 0), 19900);
  },
  'a stream of ten megabytes': async () => {
    const { pipeline } = require('stream/promises');
    fs.writeFileSync('large', Buffer.alloc(10 << 20, 'y'));
    await pipeline(fs.createReadStream('large'), require('zlib').createGzip(), fs.createWriteStream('large.gz'));
    await pipeline(fs.createReadStream('large.gz'), require('zlib').createGunzip(), fs.createWriteStream('again'));
    assert(fs.readFileSync('again').equals(fs.readFileSync('large')));
  },
  'watching a file': async () => {
    fs.writeFileSync('watched', '');
    const watcher = fs.watch('watched');
    const changed = once(watcher, 'change');
    fs.writeFileSync('watched', 'new');
    await changed;
    watcher.close();
  },
  'a child': async () => {
    const run = child.spawnSync('sh', ['-c', 'cat; echo err >&2; exit 3'], { input: 'in' });
    assert.deepStrictEqual([run.status, run.stdout.toString(), run.stderr.toString()], [3, 'in', 'err\n']);
  },
  'a child that is killed': async () => {
    const sleeper = child.spawn('sleep', ['100']);
    await once(sleeper, 'spawn');
    sleeper.kill();
    assert.strictEqual((await once(sleeper, 'exit'))[1], 'SIGTERM');
  },
  'a child that speaks': async () => {
    const fork = child.fork(__filename, ['echo']);
    fork.send({ hello: 1 });
    assert.deepStrictEqual((await once(fork, 'message'))[0], { hello: 1 });
    fork.disconnect();
    await once(fork, 'exit');
  },
  'twenty children': async () => {
    const codes = await Promise.all(Array.from({ length: 20 }, (_, i) => once(child.spawn('sh', ['-c', `exit ${i}`]), 'exit')));
    assert.strictEqual(codes.reduce((sum, [code]) => sum + code, 0), 190);
  },
  'worker threads': async () => {
    const shared = new SharedArrayBuffer(4);
    const workers = Array.from({ length: 4 }, () => new Worker(__filename, { workerData: shared }));
    const sums = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
    assert.deepStrictEqual(sums, [499500, 499500, 499500, 499500]);
    assert.strictEqual(new Int32Array(shared)[0], 4);
  },
  'HTTP on the loopback': async () => {
    const server = http.createServer((request, response) => request.pipe(response)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const bodies = await Promise.all(Array.from({ length: 50 }, (_, i) =>
      fetch(`http://127.0.0.1:${server.address().port}/`, { method: 'POST', body: `body ${i}` }).then((answer) => answer.text())));
    assert.deepStrictEqual(bodies, bodies.map((_, i) => `body ${i}`));
    server.closeAllConnections();
    server.close();
  },
  'HTTP on localhost by name': async () => {
    const server = http.createServer((_, response) => response.end('named')).listen(0, 'localhost');
    await once(server, 'listening');
    const answer = await fetch(`http://localhost:${server.address().port}/`);
    assert.strictEqual(await answer.text(), 'named');
    server.closeAllConnections();
    server.close();
  },
  'IPv6': async () => {
    const server = net.createServer((socket) => socket.end('six')).listen(0, '::1');
    await once(server, 'listening');
    const [data] = await once(net.connect(server.address().port, '::1'), 'data');
    assert.strictEqual(String(data), 'six');
    server.close();
  },
  'a local socket': async () => {
    const server = net.createServer((socket) => socket.end('local')).listen('socket');
    await once(server, 'listening');
    const [data] = await once(net.connect('socket'), 'data');
    assert.strictEqual(String(data), 'local');
    server.close();
  },
  'UDP': async () => {
    const socket = require('dgram').createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    socket.send('packet', socket.address().port, '127.0.0.1');
    assert.strictEqual(String((await once(socket, 'message'))[0]), 'packet');
    socket.close();
  },
  'TLS': async () => {
    const { createHash, generateKeyPairSync, randomBytes, scryptSync, sign, verify } = require('crypto');
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    assert(verify('sha256', Buffer.from('x'), publicKey, sign('sha256', Buffer.from('x'), privateKey)));
    assert.strictEqual(randomBytes(16).length, 16);
    assert.strictEqual(scryptSync('a', 'b', 32).length, 32);
    assert(createHash('sha256').update('abc').digest('hex').startsWith('ba7816bf'));
  },
  'a cluster': async () => {
    cluster.setupPrimary({ exec: __filename, args: ['serve'] });
    const workers = [cluster.fork(), cluster.fork()];
    const ports = await Promise.all(workers.map(async (worker) => (await once(worker, 'listening'))[0].port));
    const answer = await fetch(`http://127.0.0.1:${ports[0]}/`);
    assert.strictEqual(await answer.text(), 'cluster');
    workers.forEach((worker) => worker.kill());
    await Promise.all(workers.map((worker) => once(worker, 'exit')));
  },
  'WebAssembly': async () => {
    const code = Buffer.from('0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b', 'hex');
    const { instance } = await WebAssembly.instantiate(code);
    assert.strictEqual(instance.exports.add(40, 2), 42);
  },
  'a signal': async () => {
    const got = once(process, 'SIGUSR2');
    process.kill(process.pid, 'SIGUSR2');
    await got;
  },
  'what the machine is': async () => {
    assert(os.cpus().length > 0 && os.totalmem() > 0);
    assert(os.userInfo().username && os.hostname());
  },
  'network interfaces': async () => assert(os.networkInterfaces().lo),
  'modules': async () => {
    fs.writeFileSync('module.mjs', 'import { sep } from "path"; export default sep;');
    assert.strictEqual((await import(`${process.cwd()}/module.mjs`)).default, '/');
  },
  'much memory': async () => {
    const lists = Array.from({ length: 100 }, () => Array.from({ length: 20000 }, (_, i) => ({ i })));
    assert.strictEqual(lists.length * lists[0].length, 2000000);
    assert.strictEqual(Buffer.alloc(100 << 20, 1)[(100 << 20) - 1], 1);
  },
};

async function main() {
  for (const [name, test] of Object.entries(tests)) {
    let said = 'ok';
    let timer;
    try {
      await Promise.race([test(), new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('it takes too long')), 60000); })]);
    } catch (error) {
      said = `failed: ${String(error).replace(/\s+/g, ' ')}`;
    }
    clearTimeout(timer);
    console.log(`verdict\t${name}\t${said}`);
  }
  process.exit(0);
}

if (!isMainThread) {
  Atomics.add(new Int32Array(workerData), 0, 1);
  parentPort.postMessage(Array.from({ length: 1000 }, (_, i) => i).reduce((a, b) => a + b));
} else if (process.argv[2] === 'echo') {
  process.on('message', (message) => process.send(message));
} else if (process.argv[2] === 'serve') {
  http.createServer((_, response) => response.end('cluster')).listen(0, '127.0.0.1');
} else {
  main();
}
