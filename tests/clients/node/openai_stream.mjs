import { ASK, openai, print } from './openai_client.mjs';

const stream = await openai().chat.completions.create({
  ...ASK,
  stream: true,
  stream_options: { include_usage: true },
});
const chunks = [];
for await (const chunk of stream) chunks.push(chunk);

const whole = await openai().chat.completions.stream(ASK).finalChatCompletion();

print({
  text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''),
  usages: chunks.map((chunk) => chunk.usage),
  last_choices: chunks.at(-1).choices,
  helper: whole.choices[0].message.content,
});
