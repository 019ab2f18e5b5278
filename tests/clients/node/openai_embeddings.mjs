import { MODEL, openai, print } from './openai_client.mjs';

const packed = await openai().embeddings.create({ model: MODEL, input: ['one', 'two'] });
const plain = await openai().embeddings.create({ model: MODEL, input: 'one', encoding_format: 'float' });

print({ packed: packed.data.map((item) => item.embedding), plain: plain.data[0].embedding, usage: packed.usage });
