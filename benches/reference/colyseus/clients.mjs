// Clients that join and drop what they are sent: `clients.mjs PORT CLIENTS`.
import WebSocket from 'ws';

const [port, clients] = process.argv.slice(2).map(Number);
const JOIN_ROOM = 10;
let bytes = 0;
for (let i = 0; i < clients; i += 1) {
  const answer = await fetch(`http://127.0.0.1:${port}/matchmake/joinOrCreate/world`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json' },
    body: '{}',
  });
  const seat = await answer.json();
  const { roomId, processId } = seat.room ?? seat;
  const socket = new WebSocket(`ws://127.0.0.1:${port}/${processId}/${roomId}?sessionId=${seat.sessionId}`);
  await new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('message', () => {
      socket.send(Buffer.from([JOIN_ROOM]));
      socket.on('message', (data) => (bytes += data.length));
      socket.on('error', () => {});
      resolve();
    });
  });
}
