// The complete session flow of LimaCharlie's documents, in their own words; only addresses come from outside, what would be
// printed for people is printed as JSON, and the prompt waits until the connection is open.
const WebSocket = require('ws');

const jwt = process.env.JWT;
const baseUrl = process.env.BASE_URL;
const tell = (what, value) => console.log(JSON.stringify([what, value]));

(async () => {
  // 1. Create session
  const createResp = await fetch(`${baseUrl}/v1/sessions`, {
    method: 'POST',
    headers: { 'Authorization': `Bearer ${jwt}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ allowed_tools: ['Bash', 'Read', 'Write'] })
  });
  const { session } = await createResp.json();
  tell('created', { status: createResp.status, session });

  // 2. Wait for session to be running
  let status = 'starting';
  while (status === 'starting') {
    await new Promise(r => setTimeout(r, 1000));
    const resp = await fetch(`${baseUrl}/v1/sessions/${session.id}`, { headers: { 'Authorization': `Bearer ${jwt}` } });
    const data = await resp.json();
    status = data.session.status;
  }
  tell('status', status);

  // 3. Connect via WebSocket
  const ws = new WebSocket(`${baseUrl.replace(/^http/, 'ws')}/v1/sessions/${session.id}/ws?token=${jwt}`);

  // 4. Set up heartbeat
  const heartbeat = setInterval(() => { ws.send(JSON.stringify({ type: 'heartbeat' })); }, 100);

  // 5. Handle messages
  let asked = 0;
  ws.onmessage = (event) => {
    const msg = JSON.parse(event.data);
    tell('message', msg);
    switch (msg.type) {
      case 'result':
        asked += 1;
        if (asked === 1) {
          // 7. Later: interrupt
          ws.send(JSON.stringify({ type: 'prompt', payload: { text: 'a long one' } }));
        } else {
          fetch(`${baseUrl}/v1/sessions/${session.id}`, {
            method: 'DELETE', headers: { 'Authorization': `Bearer ${jwt}` }
          });
        }
        break;
      case 'user':
        if (msg.payload.text === 'a long one') ws.send(JSON.stringify({ type: 'interrupt' }));
        break;
      case 'session_end':
        clearInterval(heartbeat);
        break;
    }
  };

  // 6. Send a prompt
  ws.onopen = () => ws.send(JSON.stringify({
    type: 'prompt',
    payload: { text: 'Hello! List the files in the current directory.' }
  }));
  ws.on('ping', () => tell('ping', null));

  // 8. Cleanup
  ws.onclose = (event) => {
    clearInterval(heartbeat);
    tell('closed', { code: event.code, reason: event.reason });
  };
})();
