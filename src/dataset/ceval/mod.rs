//! C-Eval: its subjects and the two layouts of its releases.

mod csv_layout;
mod jsonl_layout;

use std::path::Path;

use csv_layout::CsvLayout;
use jsonl_layout::JsonlLayout;

use super::{Benchmark, Content, DatasetError, Item, ModelTestFiles, ModelTestRows, Subject, TimingPrompt};

/// C-Eval: Chinese multiple choice, 52 subjects in four categories.
pub static CEVAL: Benchmark = Benchmark {
    name: "ceval",
    title: "C-Eval",
    splits: &["dev", "val", "test"],
    default_split: "val",
    demonstration_split: "dev",
    layouts: &[&CsvLayout, &JsonlLayout],
    chance: Some(0.25),
    categories: &[STEM, SOCIAL_SCIENCE, HUMANITIES, OTHER],
    part: "Hard",
    is_grid: false,
    timing_prompt: TimingPrompt::Function(timing_prompt),
    modeltest: Some(ModelTestFiles {
        set: "CEval",
        rows: ModelTestRows::Subjects,
        answers: &[],
        right: "Correct",
        wrong: "Wrong",
    }),
    file: None,
};

/// Science, technology, engineering, mathematics.
const STEM: &str = "STEM";
/// Social science.
const SOCIAL_SCIENCE: &str = "Social Science";
/// Humanities.
const HUMANITIES: &str = "Humanities";
/// Everything else: medicine, civil service, engineering licences.
const OTHER: &str = "Other";

/// The letters of the four options.
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// How reading changes the text, in both layouts.
const NORMALISATION: &str =
    "a line end \\r\\n within a question or option is read as \\n; hashes are of the text so read";

/// An official subject: key, Chinese name, category.
pub type OfficialSubject = (&'static str, &'static str, &'static str);

/// The 52 subjects of C-Eval, ordered by category and key.
#[rustfmt::skip]
pub const OFFICIAL_SUBJECTS: [OfficialSubject; 52] = [
    ("advanced_mathematics", "高等数学", STEM),
    ("college_chemistry", "大学化学", STEM),
    ("college_physics", "大学物理", STEM),
    ("college_programming", "大学编程", STEM),
    ("computer_architecture", "计算机组成", STEM),
    ("computer_network", "计算机网络", STEM),
    ("discrete_mathematics", "离散数学", STEM),
    ("electrical_engineer", "注册电气工程师", STEM),
    ("high_school_biology", "高中生物", STEM),
    ("high_school_chemistry", "高中化学", STEM),
    ("high_school_mathematics", "高中数学", STEM),
    ("high_school_physics", "高中物理", STEM),
    ("metrology_engineer", "注册计量师", STEM),
    ("middle_school_biology", "初中生物", STEM),
    ("middle_school_chemistry", "初中化学", STEM),
    ("middle_school_mathematics", "初中数学", STEM),
    ("middle_school_physics", "初中物理", STEM),
    ("operating_system", "操作系统", STEM),
    ("probability_and_statistics", "概率统计", STEM),
    ("veterinary_medicine", "兽医学", STEM),
    ("business_administration", "工商管理", SOCIAL_SCIENCE),
    ("college_economics", "大学经济学", SOCIAL_SCIENCE),
    ("education_science", "教育学", SOCIAL_SCIENCE),
    ("high_school_geography", "高中地理", SOCIAL_SCIENCE),
    ("high_school_politics", "高中政治", SOCIAL_SCIENCE),
    ("mao_zedong_thought", "毛泽东思想和中国特色社会主义理论体系概论", SOCIAL_SCIENCE),
    ("marxism", "马克思主义基本原理", SOCIAL_SCIENCE),
    ("middle_school_geography", "初中地理", SOCIAL_SCIENCE),
    ("middle_school_politics", "初中政治", SOCIAL_SCIENCE),
    ("teacher_qualification", "教师资格", SOCIAL_SCIENCE),
    ("art_studies", "艺术学", HUMANITIES),
    ("chinese_language_and_literature", "中国语言文学", HUMANITIES),
    ("high_school_chinese", "高中语文", HUMANITIES),
    ("high_school_history", "高中历史", HUMANITIES),
    ("ideological_and_moral_cultivation", "思想道德修养与法律基础", HUMANITIES),
    ("law", "法学", HUMANITIES),
    ("legal_professional", "法律职业资格", HUMANITIES),
    ("logic", "逻辑学", HUMANITIES),
    ("middle_school_history", "初中历史", HUMANITIES),
    ("modern_chinese_history", "近代史纲要", HUMANITIES),
    ("professional_tour_guide", "导游资格", HUMANITIES),
    ("accountant", "注册会计师", OTHER),
    ("basic_medicine", "基础医学", OTHER),
    ("civil_servant", "公务员", OTHER),
    ("clinical_medicine", "临床医学", OTHER),
    ("environmental_impact_assessment_engineer", "环境影响评价工程师", OTHER),
    ("fire_engineer", "注册消防工程师", OTHER),
    ("physician", "医师资格", OTHER),
    ("plant_protection", "植物保护", OTHER),
    ("sports_science", "体育学", OTHER),
    ("tax_accountant", "税务师", OTHER),
    ("urban_and_rural_planner", "注册城乡规划师", OTHER),
];

/// The eight subjects of "C-Eval Hard".
pub const HARD_SUBJECTS: [&str; 8] = [
    "advanced_mathematics",
    "discrete_mathematics",
    "probability_and_statistics",
    "college_chemistry",
    "college_physics",
    "high_school_mathematics",
    "high_school_chemistry",
    "high_school_physics",
];

/// Name of the file with the names and category of every subject.
const MAPPING_FILE: &str = "subject_mapping.json";

/// Returns `subject_mapping.json` of the official subjects: key → English name, Chinese name, category. The released
/// archive of C-Eval does not contain this file, so `dataset prepare` writes it.
pub fn mapping_json() -> String {
    let mapping: serde_json::Map<_, _> = OFFICIAL_SUBJECTS
        .iter()
        .map(|(key, chinese, category)| {
            (key.to_string(), serde_json::json!([english_name(key), chinese, category]))
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&mapping).expect("invariant: a map of strings is JSON");
    text.push('\n');
    text
}

/// Returns the official English name: the words of the key, capitalised except `and`.
fn english_name(key: &str) -> String {
    let capital = |word: &str| match word {
        "and" => word.to_owned(),
        _ => word[..1].to_uppercase() + &word[1..],
    };
    key.split('_').map(capital).collect::<Vec<_>>().join(" ")
}

/// Returns the official entry of a subject.
fn official(key: &str) -> Option<&'static OfficialSubject> {
    OFFICIAL_SUBJECTS.iter().find(|(k, _, _)| *k == key)
}

/// Returns a subject. Whether it is hard follows from its key.
fn subject(key: &str, chinese_name: Option<String>, category: &str) -> Subject {
    let hard = HARD_SUBJECTS.contains(&key);
    Subject { key: key.to_owned(), chinese_name, category: Some(category.to_owned()), hard }
}

/// Returns the frame of ModelTest's zero-shot run, with the subject's key.
fn timing_prompt(item: &Item) -> String {
    match &item.content {
        Content::Choice(choice) => format!(
            "\n以下是中国关于{}考试的单项选择题，请选出其中的正确答案。\n{}\n让我们一步一步思考。答案: ",
            item.subject,
            choice.question_and_options()
        ),
        _ => String::new(),
    }
}

/// The first entry of a split folder that tells the layouts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// A csv file.
    Csv,
    /// A category's folder.
    Jsonl,
}

/// Looks through the split folders for evidence of a layout.
fn evidence(root: &Path) -> Result<Option<Evidence>, DatasetError> {
    for split in ["val", "test", "dev"] {
        let dir = root.join(split);
        if !dir.is_dir() {
            continue;
        }
        for name in super::entries(&dir)? {
            if Path::new(&name).extension().is_some_and(|e| e == "csv") {
                return Ok(Some(Evidence::Csv));
            }
            if CEVAL.category(&name).is_some() && dir.join(&name).is_dir() {
                return Ok(Some(Evidence::Jsonl));
            }
        }
    }
    Ok(None)
}

/// Checks that every requested subject is in `known`.
fn check_subjects<'a>(
    place: &Path,
    wanted: &[String],
    known: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), DatasetError> {
    match wanted.iter().find(|s| !known.clone().any(|k| k == *s)) {
        None => Ok(()),
        Some(unknown) => {
            let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(DatasetError::layout(place, format!("no subject `{unknown}`"), format!("one of {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_categories_have_their_published_numbers_of_subjects() {
        let count = |c: &str| OFFICIAL_SUBJECTS.iter().filter(|(_, _, category)| *category == c).count();
        let counts: Vec<usize> = CEVAL.categories.iter().map(|category| count(category)).collect();
        assert_eq!(counts, [20, 10, 11, 11]);
        for hard in HARD_SUBJECTS {
            assert_eq!(official(hard).unwrap().2, STEM);
        }
    }

    #[test]
    fn english_names_are_the_official_ones() {
        assert_eq!(english_name("urban_and_rural_planner"), "Urban and Rural Planner");
        assert_eq!(english_name("law"), "Law");
    }
}
