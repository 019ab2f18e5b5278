import { embed, embedMany } from 'ai';
import { MODEL, hub, print } from './ai_client.mjs';

const model = hub.embeddingModel(MODEL);
const one = await embed({ model, value: 'one' });
const many = await embedMany({ model, values: ['one', 'two'] });

print({ one: one.embedding, many: many.embeddings, usage: one.usage });
