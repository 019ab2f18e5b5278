// What a call raises. Given: `model`, and settings of the call.
import { APICallError, RetryError, generateText } from 'ai';
import { MODEL, given, hub, print } from './ai_client.mjs';

const { model = MODEL, ...settings } = given;

try {
  const { text } = await generateText({ model: hub.chatModel(model), prompt: 'Hello', ...settings });
  print({ raised: null, text });
} catch (error) {
  const last = RetryError.isInstance(error) ? error.lastError : error;
  print({
    raised: error.name,
    is_call_error: APICallError.isInstance(last),
    status: last.statusCode,
    retryable: last.isRetryable,
    message: last.message,
    error: last.data?.error,
  });
}
