import { ASK, openai, print } from './openai_client.mjs';

const stream = await openai().chat.completions.create({ ...ASK, stream: true });
for await (const chunk of stream) {
  if (chunk.choices[0].delta.content) break;
}

print({ aborted: stream.controller.signal.aborted });
process.stdin.resume(); // it lives on until its input ends: that it exits is not what ends the call
