import { MODEL, openai, print } from './openai_client.mjs';

const ids = [];
for await (const model of openai().models.list()) ids.push(model.id);
const retrieved = await openai().models.retrieve('acme/chat-1');
const older = await openai().completions.create({ model: MODEL, prompt: 'Say hello' });

print({ ids, retrieved: retrieved.id, older: older.choices[0].text });
