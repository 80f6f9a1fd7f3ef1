// Our own package, as a page uses it.
import {load} from '/lib/doppler.js';

/** @param {{model: string, context: number}} options */
export const open = async ({model, context}) => {
    const engine = await load(new URL(model, location.href).href, {context});
    return {
        note: engine.deviceInfo?.tier ?? '',
        lines: [],
        async generate(prompt, maxTokens, onText) {
            const stream = engine.generate(prompt,
                {maxTokens, temperature: 0, ignoreStops: true, addSpecial: false,
                    parseSpecial: true});
            for await (const part of stream) {
                part.tokens.forEach((_, i) => onText(i === 0 ? part.text : ''));
            }
        },
        close: () => engine.close(),
    };
};
