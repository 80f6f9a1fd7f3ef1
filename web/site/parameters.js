// @ts-check
/**
 * The parameters of sampling: the one table of their names, bounds and defaults, the fields made
 * from it, and where they are kept between visits. What was kept is checked like anything else that
 * comes from outside.
 */

const STORE = 'doppler.parameters';

/**
 * @typedef {{key: string, label: string, min: number, max: number, step: number,
 *     value: number | null, slider?: boolean, hint?: string}} Parameter
 */

/** `value` null: left to chance. @type {readonly Parameter[]} */
export const parameters = Object.freeze([
    { key: 'temperature', label: 'Temperature', min: 0, max: 2, step: 0.05, value: 0.7,
        slider: true, hint: '0 always takes the likeliest token.' },
    { key: 'topK', label: 'Top k', min: 0, max: 200, step: 1, value: 40, slider: true,
        hint: '0 leaves all tokens in.' },
    { key: 'topP', label: 'Top p', min: 0, max: 1, step: 0.01, value: 0.95, slider: true },
    { key: 'minP', label: 'Min p', min: 0, max: 1, step: 0.01, value: 0.05, slider: true },
    { key: 'repeatPenalty', label: 'Repeat penalty', min: 1, max: 2, step: 0.01, value: 1,
        slider: true },
    { key: 'maxTokens', label: 'Most tokens', min: 1, max: 65536, step: 1, value: 512 },
    { key: 'seed', label: 'Seed', min: 0, max: 4294967295, step: 1, value: null,
        hint: 'Empty: another one each time. It is shown with the answer.' },
]);

/**
 * @param {Parameter} parameter @param {unknown} value
 * @returns {number | null} the value in its bounds, or the default
 */
export function inBounds(parameter, value) {
    if (typeof value !== 'number' || !Number.isFinite(value)) return parameter.value;
    const whole = parameter.step >= 1 ? Math.round(value) : value;
    return Math.min(parameter.max, Math.max(parameter.min, whole));
}

/** @returns {Object<string, unknown>} */
function stored() {
    try {
        const value = JSON.parse(localStorage.getItem(STORE) ?? '{}');
        return typeof value === 'object' && value !== null ? value : {};
    } catch {
        return {};
    }
}

/**
 * Fills a form with fields for all parameters.
 * @param {HTMLFormElement} form
 */
export class Parameters {
    /** @param {HTMLFormElement} form @param {HTMLTextAreaElement} system */
    constructor(form, system) {
        const kept = stored();
        this.system = system;
        /** @type {Map<string, {number: HTMLInputElement, slider: HTMLInputElement | null}>} */
        this.fields = new Map();
        for (const parameter of parameters) {
            form.append(this.makeField(parameter));
            this.set(parameter, inBounds(parameter, kept[parameter.key]));
        }
        if (typeof kept.system === 'string') system.value = kept.system.slice(0, system.maxLength);
        system.addEventListener('change', () => this.keep());
        form.addEventListener('submit', (event) => event.preventDefault());
    }

    /** @param {Parameter} parameter */
    makeField(parameter) {
        const { key, label: words, min, max, step } = parameter;
        const field = document.createElement('div');
        const label = document.createElement('label');
        const number = document.createElement('input');
        field.className = 'field';
        label.htmlFor = number.id = `parameter-${key}`;
        label.textContent = words;
        Object.assign(number, { type: 'number', min: `${min}`, max: `${max}`, step: `${step}` });
        number.inputMode = step < 1 ? 'decimal' : 'numeric';
        if (parameter.value === null) number.placeholder = 'random';
        field.append(label, number);
        const slider = parameter.slider ? this.makeSlider(parameter, number) : null;
        if (slider) field.append(slider);
        if (parameter.hint) field.append(this.makeHint(parameter, number));
        number.addEventListener('change', () => {
            this.set(parameter, number.value === '' ? parameter.value
                : inBounds(parameter, number.valueAsNumber));
            this.keep();
        });
        this.fields.set(key, { number, slider });
        return field;
    }

    /** @param {Parameter} parameter @param {HTMLInputElement} number */
    makeSlider(parameter, number) {
        const { label, min, max, step } = parameter;
        const slider = document.createElement('input');
        Object.assign(slider, { type: 'range', min: `${min}`, max: `${max}`, step: `${step}` });
        slider.setAttribute('aria-label', `${label}, slider`);
        slider.addEventListener('input', () => {
            number.value = slider.value;
        });
        slider.addEventListener('change', () => this.keep());
        return slider;
    }

    /** @param {Parameter} parameter @param {HTMLInputElement} number */
    makeHint(parameter, number) {
        const hint = document.createElement('p');
        hint.className = 'hint';
        hint.id = `hint-${parameter.key}`;
        hint.textContent = parameter.hint ?? '';
        number.setAttribute('aria-describedby', hint.id);
        return hint;
    }

    /** @param {Parameter} parameter @param {number | null} value */
    set(parameter, value) {
        const field = this.fields.get(parameter.key);
        if (!field) return;
        field.number.value = value === null ? '' : `${value}`;
        if (field.slider) field.slider.value = field.number.value;
    }

    /** @returns {Object<string, number>} what is set, ready for `generate` */
    values() {
        /** @type {Object<string, number>} */
        const values = {};
        for (const parameter of parameters) {
            const number = this.fields.get(parameter.key)?.number;
            const value = number && number.value !== '' ? inBounds(parameter, number.valueAsNumber)
                : parameter.value;
            if (value !== null) values[parameter.key] = value;
        }
        return values;
    }

    reset() {
        for (const parameter of parameters) this.set(parameter, parameter.value);
        this.system.value = '';
        this.keep();
    }

    keep() {
        try {
            const value = { ...this.values(), system: this.system.value };
            localStorage.setItem(STORE, JSON.stringify(value));
        } catch {
            /* storage is off or full: they hold for this visit */
        }
    }
}
